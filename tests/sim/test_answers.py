"""Prompts answered by simulated swarms: always the text that one machine alone would give."""

from __future__ import annotations

import asyncio

import pytest

from pyodide_node.errors import ConfigError, LocalError, NoRoute, UnknownModel
from pyodide_node.hosts.simulated import virtual
from pyodide_node.inference.generation import InferenceRequest
from pyodide_node.inference.sampling import Sampling

from .swarm import PROMPT, Swarm, ask, swarm


@virtual
async def test_alone_it_runs_the_whole_model() -> None:
    async with swarm() as net:
        ada = await net.node("ada")
        answer = await ask(ada)
        assert answer.ids == net.expected(12)
        assert [hop["path"] for hop in answer.route] == ["local"]


@virtual
async def test_without_any_relay_it_works_alone() -> None:
    async with swarm() as net:
        ada = await net.node("ada", relays=())
        assert (await ask(ada)).ids == net.expected(12)


@virtual
async def test_an_unreachable_relay_at_the_start_is_no_failure() -> None:
    async with swarm() as net:
        net.network.kill("wss://relay.test/mesh")
        ada = await net.node("ada")
        assert (await ask(ada)).ids == net.expected(12)
        status = await ada.status()
        assert not status["relay"]["connected"]
        assert status["relay"]["error"]
        net.start_relay()
        await asyncio.sleep(40)
        assert (await ada.status())["relay"]["connected"]
        assert len(net.hub.directory) == 1


@pytest.mark.parametrize("path", ["auto", "webrtc", "relay"])
def test_three_nodes_share_the_blocks(path: str) -> None:
    @virtual
    async def run() -> None:
        async with swarm() as net:
            ada = await net.node("ada", max_blocks=3, path=path)
            await net.node("bob", max_blocks=3, path=path)
            await net.node("cyd", max_blocks=3, path=path)
            await net.covered()
            answer = await ask(ada)
            assert answer.ids == net.expected(12)
            assert len({hop["peer"] for hop in answer.route}) == 3
            remote = {hop["path"] for hop in answer.route if hop["peer"] != ada.peer}
            assert remote == {"webrtc" if path == "auto" else path}

    run()


@virtual
async def test_nodes_that_come_together_spread_over_all_blocks() -> None:
    async with swarm() as net:
        names = ["ada", "bob", "cyd", "dan"]
        await asyncio.gather(*(net.node(name, max_blocks=2) for name in names))
        await asyncio.wait_for(net.covered(), 60)
        assert (await ask(net.nodes["ada"])).ids == net.expected(12)


@virtual
async def test_webrtc_blocked_the_relay_carries_everything() -> None:
    async with swarm() as net:
        net.network.block_webrtc("ada")
        ada = await net.node("ada", max_blocks=4)
        await net.node("bob", max_blocks=4)
        await net.covered()
        answer = await ask(ada)
        assert answer.ids == net.expected(12)
        assert answer.route[-1]["path"] == "relay"


@virtual
async def test_the_relay_lost_midway_the_direct_path_goes_on() -> None:
    async with swarm() as net:
        ada = await net.node("ada", max_blocks=4)
        await net.node("bob", max_blocks=4)
        await net.covered()
        await ask(ada, 4)

        def lose_relay(seen: int) -> None:
            if seen >= 3:
                net.network.kill("wss://relay.test/mesh")

        answer = await ask(ada, 12, on_token=lose_relay)
        assert answer.ids == net.expected(12)
        assert answer.reroutes == 0


async def _two_spare(net: Swarm) -> None:
    await net.node("ada", max_blocks=4)
    for name in ("bob", "cyd", "dan"):
        await net.node(name, max_blocks=4)
    await net.covered()


@pytest.mark.parametrize("silent", [False, True], ids=["closed", "powerless"])
def test_a_stage_that_vanishes_changes_no_word(silent: bool) -> None:
    @virtual
    async def run() -> None:
        async with swarm() as net:
            await _two_spare(net)
            ada = net.nodes["ada"]

            def kill_the_stage(seen: int) -> None:
                if seen >= 5 and not killed:
                    peer = _remote_peer(net)
                    killed.append(peer)
                    net.kill(peer, silent=silent)

            killed: list[str] = []
            begun = asyncio.get_running_loop().time()
            answer = await ask(ada, 12, on_token=kill_the_stage)
            assert killed
            assert answer.ids == net.expected(12)
            assert answer.reroutes == 1
            assert asyncio.get_running_loop().time() - begun < (15 if silent else 3)

    run()


def _remote_peer(net: Swarm) -> str:
    """A node that ada's running session goes through."""
    work = net.nodes["ada"]._work
    assert work is not None
    (session,) = work.asker._sessions.values()
    keys = {host.keys.public_key: name for name, host in net.hosts.items()}
    return next(keys[hop.peer] for hop in session.hops if keys[hop.peer] != "ada")


@virtual
async def test_the_replacement_may_vanish_too() -> None:
    async with swarm() as net:
        await _two_spare(net)
        killed: list[str] = []

        def kill_twice(seen: int) -> None:
            if len(killed) < 2 and seen >= 4 + 3 * len(killed):
                killed.append(_remote_peer(net))
                net.kill(killed[-1])

        answer = await ask(net.nodes["ada"], 12, on_token=kill_twice)
        assert len(killed) == 2
        assert answer.ids == net.expected(12)
        assert answer.reroutes == 2


@virtual
async def test_nobody_left_the_asker_runs_the_missing_blocks_itself() -> None:
    async with swarm() as net:
        ada = await net.node("ada")
        await net.node("bob", max_blocks=4)
        # ada holds everything; make her ask as if she held half
        work = ada._work
        assert work is not None
        await work.holding.unload()
        await work.holding.load(0, 4)
        await asyncio.sleep(1)

        def kill(seen: int) -> None:
            if seen >= 5:
                net.kill("bob")

        answer = await ask(ada, 12, on_token=kill)
        assert answer.ids == net.expected(12)
        assert {hop["peer"] for hop in answer.route} == {ada.peer}


@virtual
async def test_a_stage_that_sends_nan_is_passed_over() -> None:
    async with swarm() as net:
        await _two_spare(net)
        for name in ("bob", "cyd", "dan"):
            if net.nodes[name]._work.holding.span == (4, 8):  # type: ignore[union-attr]
                net.hosts[name].engine.faults.nan = True
                break
        answer = await ask(net.nodes["ada"])
        assert answer.ids == net.expected(12)


@virtual
async def test_an_engine_that_crashes_is_another_failed_stage() -> None:
    async with swarm() as net:
        await _two_spare(net)
        for name in ("bob", "cyd", "dan"):
            if net.nodes[name]._work.holding.span == (4, 8):  # type: ignore[union-attr]
                net.hosts[name].engine.faults.crashes = True
                break
        assert (await ask(net.nodes["ada"])).ids == net.expected(12)


@virtual
async def test_several_answers_at_once_do_not_mix() -> None:
    async with swarm() as net:
        ada = await net.node("ada", max_blocks=4)
        bob = await net.node("bob", max_blocks=4)
        await net.covered()
        answers = await asyncio.gather(*(ask(node, 10) for node in (ada, bob, ada, bob, ada)))
        assert {tuple(answer.ids) for answer in answers} == {tuple(net.expected(10))}


@virtual
async def test_a_prompt_of_several_chunks() -> None:
    async with swarm() as net:
        ada = await net.node("ada", max_blocks=4)
        await net.node("bob", max_blocks=4)
        await net.covered()
        prompt = "All happy families are alike. " * 8
        answer = await ask(ada, 6, prompt=prompt)
        assert answer.ids == net.model.greedy([256, *prompt.encode()], 6)


@virtual
async def test_a_seed_gives_the_same_text_and_another_seed_another() -> None:
    async with swarm() as net:
        ada = await net.node("ada")
        sampling = Sampling(temperature=1.5, seed=1)
        first = await ask(ada, 24, sampling=sampling)
        again = await ask(ada, 24, sampling=sampling)
        other = await ask(ada, 24, sampling=Sampling(temperature=1.5, seed=2))
        assert first.ids == again.ids != other.ids


@virtual
async def test_an_answer_is_taken_up_again_from_its_ids() -> None:
    async with swarm() as net:
        ada = await net.node("ada")
        sampling = Sampling(temperature=1.2, top_p=0.9, seed=7)
        whole = await ask(ada, 20, sampling=sampling)
        rest = await ask(ada, 20, sampling=sampling, resume_ids=tuple(whole.ids[:8]))
        assert rest.ids == whole.ids
        assert rest.text == whole.text


@virtual
async def test_a_cancelled_answer_leaves_nothing_open() -> None:
    async with swarm() as net:
        ada = await net.node("ada", max_blocks=4)
        bob = await net.node("bob", max_blocks=4)
        await net.covered()
        async for _ in ada.run_inference(InferenceRequest(prompt=PROMPT, max_tokens=50)):
            break
        await asyncio.sleep(1)
        for node in (ada, bob):
            assert node._work is not None
            assert not node._work.serving.busy


@virtual
async def test_blocks_that_nobody_serves_are_named() -> None:
    async with swarm() as net:
        ada = await net.node("ada", max_blocks=4)
        with pytest.raises(NoRoute, match="nobody serves block") as caught:
            await ask(ada)
        assert caught.value.data["missing"] in (0, 4)


@virtual
async def test_a_prompt_longer_than_the_context_is_refused() -> None:
    async with swarm() as net:
        ada = await net.node("ada")
        with pytest.raises(ConfigError, match="tokens and"):
            await ask(ada, prompt="x" * 600)


@virtual
async def test_an_unknown_model_is_named_with_those_there_are() -> None:
    async with swarm() as net:
        with pytest.raises(UnknownModel) as caught:
            await net.node("ada", model="gpt-17")
        assert net.model.manifest.name in caught.value.data["known"]
        bob = await net.node("bob")
        with pytest.raises(UnknownModel):
            await ask(bob, model="gpt-17")


@virtual
async def test_asking_before_a_model_is_loaded_says_so() -> None:
    async with swarm() as net:
        ada = await net.node("ada")
        ada._model = None
        with pytest.raises(LocalError, match="wait until it is ready"):
            await ask(ada)
