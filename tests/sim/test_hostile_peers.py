"""Peers that mean ill: each of their tricks ends in a refusal or nothing, and harms no other."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from pyodide_node.hosts.simulated import virtual
from pyodide_node.wire import limits
from pyodide_node.wire.messages import (
    CloseSession,
    Message,
    OpenSession,
    Result,
    SessionOpened,
    StageError,
    StageReport,
    Step,
    Subscribe,
)

from .hostile import Outsider, key_of, opening, outsider, serving_of
from .swarm import Swarm, ask, swarm

ONE = (1).to_bytes(16, "big")
SEED = 1
"""With it ada takes the first half of the blocks."""


def hidden(net: Swarm, count: int = 1, value: float = 0.5) -> bytes:
    return np.full((count, net.model.manifest.hidden_size), value, "<f4").tobytes()


def errors(who: Outsider) -> list[str]:
    return [one.code for one in who.of(StageError)]  # type: ignore[attr-defined]


async def still_serves(net: Swarm, name: str = "ada") -> None:
    assert (await ask(net.nodes[name], 4)).ids == net.expected(4)


# --- what a stage is sent -----------------------------------------------------------------


@virtual
async def test_a_session_fed_as_agreed_gives_results() -> None:
    """What the rest of this file departs from."""
    async with swarm() as net, outsider(net, "mallory") as mallory:
        ada = await net.node("ada")
        await mallory.say(ada, opening(net, mallory.key))
        await mallory.say(ada, Step(ONE, 0, 0, 3), hidden(net, 3))
        assert [message for _, message, _ in mallory.got if not isinstance(message, StageReport)][
            -2:
        ] == [SessionOpened(ONE, 0), Result(ONE, 2)]


@pytest.mark.parametrize(
    ("step", "count", "value", "code"),
    [
        (Step(ONE, 0, 0, 2), 1, 0.5, "ProtocolError"),
        (Step(ONE, 0, 0, 1), 0, 0.5, "ProtocolError"),
        (Step(ONE, 0, 0, 1), 1, float("nan"), "ProtocolError"),
        (Step(ONE, 0, 0, 1), 1, float("inf"), "ProtocolError"),
        (Step(ONE, 0, 5, 1), 1, 0.5, "gap"),
        (Step(ONE, 0, limits.POSITIONS - 1, 1), 1, 0.5, "gap"),
        (Step(ONE, 0, 0, 65), 65, 0.5, "full"),
        (Step(ONE, 1, 0, 1), 1, 0.5, "closed"),
        (Step(bytes(16), 0, 0, 1), 1, 0.5, "closed"),
    ],
    ids=["short", "empty", "nan", "infinite", "gap", "far", "full", "other hop", "unknown"],
)
def test_a_step_that_is_wrong_is_refused_and_the_session_goes_on(
    step: Step, count: int, value: float, code: str
) -> None:
    @virtual
    async def run() -> None:
        async with swarm() as net, outsider(net, "mallory") as mallory:
            ada = await net.node("ada")
            await mallory.say(ada, opening(net, mallory.key))
            await mallory.say(ada, step, hidden(net, count, value))
            assert errors(mallory) == [code]
            assert mallory.of(Result) == []
            await mallory.say(ada, Step(ONE, 0, 0, 1), hidden(net))
            assert mallory.of(Result) == [Result(ONE, 0)]
            await still_serves(net)

    run()


@virtual
async def test_steps_for_another_s_session_touch_neither_it_nor_its_asker() -> None:
    async with (
        swarm() as net,
        outsider(net, "victim") as victim,
        outsider(net, "mallory") as mallory,
    ):
        ada = await net.node("ada")
        await victim.say(ada, opening(net, victim.key))
        await mallory.say(ada, Step(ONE, 0, 0, 1), hidden(net))
        await mallory.say(ada, CloseSession(ONE))
        assert errors(mallory) == ["ProtocolError"]
        assert errors(victim) == []
        assert victim.of(Result) == []
        await victim.say(ada, Step(ONE, 0, 0, 1), hidden(net))
        assert victim.of(Result) == [Result(ONE, 0)]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"model": bytes(32)}, "model"),
        ({"last": 9}, "moved"),
        ({"first": 8, "last": 8}, "moved"),
        ({"first": 4, "last": 2}, "moved"),
        ({"capacity": 513}, "moved"),
    ],
    ids=["model", "beyond", "empty", "backwards", "context"],
)
def test_an_opening_of_what_is_not_served_is_refused(changes: dict[str, object], code: str) -> None:
    @virtual
    async def run() -> None:
        async with swarm() as net, outsider(net, "mallory") as mallory:
            ada = await net.node("ada")
            await mallory.say(ada, opening(net, mallory.key, **changes))
            assert errors(mallory) == [code]
            assert not serving_of(ada).busy
            await still_serves(net)

    run()


@virtual
async def test_a_session_is_opened_once() -> None:
    async with swarm() as net, outsider(net, "mallory") as mallory:
        ada = await net.node("ada")
        for _ in range(2):
            await mallory.say(ada, opening(net, mallory.key))
        assert len(mallory.of(SessionOpened)) == 1
        assert errors(mallory) == ["open"]


@virtual
async def test_a_flood_of_openings_is_refused_and_leaves_room_for_others() -> None:
    async with swarm() as net, outsider(net, "mallory") as mallory:
        ada = await net.node("ada")
        used = ada.budget.memory_used
        for number in range(1000):
            mallory.mesh.send(key_of(ada), opening(net, mallory.key, session=number))
        await asyncio.sleep(2)
        assert len(mallory.of(SessionOpened)) == limits.SESSIONS_PER_PEER
        assert errors(mallory) == ["busy"] * (1000 - limits.SESSIONS_PER_PEER)
        await still_serves(net)
        await mallory.mesh.close()
        await asyncio.sleep(400)
        assert not serving_of(ada).busy
        assert ada.budget.memory_used == used


@virtual
async def test_sessions_that_are_not_used_give_their_memory_back() -> None:
    async with swarm() as net, outsider(net, "mallory") as mallory:
        ada = await net.node("ada")
        used = ada.budget.memory_used
        await mallory.say(ada, opening(net, mallory.key))
        assert ada.budget.memory_used > used
        await asyncio.sleep(400)
        assert ada.budget.memory_used == used
        await mallory.say(ada, Step(ONE, 0, 0, 1), hidden(net))
        assert errors(mallory) == ["closed"]


@virtual
async def test_a_flood_of_steps_is_bounded_and_answers_to_others_still_come() -> None:
    async with swarm() as net, outsider(net, "mallory") as mallory:
        ada = await net.node("ada")
        await mallory.say(ada, opening(net, mallory.key))
        for _ in range(200):
            mallory.mesh.send(key_of(ada), Step(ONE, 0, 0, 1), hidden(net))
        await asyncio.sleep(0.1)
        await still_serves(net)
        await asyncio.sleep(2)
        assert "flooded" in errors(mallory)
        assert len(mallory.of(Result)) >= limits.QUEUED_STEPS


@virtual
async def test_messages_that_only_relays_and_askers_get_are_ignored_by_a_stage() -> None:
    async with swarm() as net, outsider(net, "mallory") as mallory:
        ada = await net.node("ada")
        for message in (
            Subscribe(bytes(32)),
            Result(ONE, 0),
            SessionOpened(ONE, 255),
            StageError(ONE, 255, "x", "y"),
            StageReport(ONE, 255, "relay", 1.0),
        ):
            await mallory.say(ada, message, hidden(net))
        assert mallory.got == []
        await still_serves(net)


# --- what an asker is sent ----------------------------------------------------------------


async def half_and_liar(net: Swarm, mallory: Outsider) -> None:
    """ada holds the first half, the liar says that it has the second, and so has honest bob."""
    await net.node("ada", max_blocks=4)
    await net.node("bob", max_blocks=4)
    await net.covered()
    assert net.nodes["ada"]._work.holding.span == (0, 4)  # type: ignore[union-attr]
    # A little faster, so that it is asked first; not so much that bob would move away.
    await mallory.announces(net.model.manifest.model_id, 4, 8, 1100.0)


def opens_and(*replies: object) -> object:
    """An outsider that opens every session, and on each step says `replies`."""

    def answer(me: Outsider, peer: bytes, message: Message) -> None:
        match message:
            case OpenSession(session, hop):
                me.mesh.send(peer, SessionOpened(session, hop))
            case Step(session, hop, position, count):
                for reply in replies:
                    reply(me, peer, session, hop, position + count - 1)  # type: ignore[operator]

    return answer


def silence(me: Outsider, peer: bytes, session: bytes, hop: int, last: int) -> None:
    pass


def nan_result(me: Outsider, peer: bytes, session: bytes, hop: int, last: int) -> None:
    me.mesh.send(peer, Result(session, last), np.full(32, np.nan, "<f4").tobytes())


def short_result(me: Outsider, peer: bytes, session: bytes, hop: int, last: int) -> None:
    me.mesh.send(peer, Result(session, last), bytes(4))


def other_positions(me: Outsider, peer: bytes, session: bytes, hop: int, last: int) -> None:
    for position in range(1000):
        me.mesh.send(peer, Result(session, last + 1 + position), bytes(128))


def engine_error(me: Outsider, peer: bytes, session: bytes, hop: int, last: int) -> None:
    me.mesh.send(peer, StageError(session, hop, "EngineError", "x" * 1000))


def wrong_hops(me: Outsider, peer: bytes, session: bytes, hop: int, last: int) -> None:
    for wrong in (0, 1, 255):
        if wrong != hop:
            me.mesh.send(peer, StageError(session, wrong, "x", "y"))
            me.mesh.send(peer, SessionOpened(session, wrong))
            me.mesh.send(peer, StageReport(session, wrong, "relay", 1.0))


@pytest.mark.parametrize(
    "trick",
    [silence, nan_result, short_result, other_positions, engine_error, wrong_hops],
)
def test_a_stage_that_lies_or_stalls_changes_no_word(trick: object) -> None:
    @virtual
    async def run() -> None:
        async with (
            swarm(seed=SEED) as net,
            outsider(net, "mallory", opens_and(trick)) as mallory,  # type: ignore[arg-type]
        ):
            await half_and_liar(net, mallory)
            answer = await ask(net.nodes["ada"], 6)
            assert mallory.of(Step)
            assert answer.ids == net.expected(6)
            assert answer.reroutes == 1

    run()


@virtual
async def test_results_for_positions_never_asked_take_no_memory() -> None:
    async with (
        swarm(seed=SEED) as net,
        outsider(net, "mallory", opens_and(other_positions)) as mallory,  # type: ignore[arg-type]
    ):
        await half_and_liar(net, mallory)
        task = asyncio.ensure_future(ask(net.nodes["ada"], 6))
        await asyncio.sleep(2)
        assert mallory.of(Step)
        (session,) = net.nodes["ada"]._work.asker._sessions.values()  # type: ignore[union-attr]
        assert len(session._results) == 0
        await task


@virtual
async def test_a_stage_that_never_opens_is_passed_over_by_its_deadline() -> None:
    async with swarm(seed=SEED) as net, outsider(net, "mallory") as mallory:
        await half_and_liar(net, mallory)
        answer = await ask(net.nodes["ada"], 6)
        assert mallory.of(OpenSession)
        assert answer.ids == net.expected(6)


def says_moved(me: Outsider, peer: bytes, message: Message) -> None:
    if isinstance(message, OpenSession):
        me.mesh.send(peer, StageError(message.session, message.hop, "moved", "elsewhere"))


@virtual
async def test_a_stage_that_always_says_it_moved_is_passed_over() -> None:
    async with swarm(seed=SEED) as net, outsider(net, "mallory", says_moved) as mallory:
        await half_and_liar(net, mallory)
        answer = await ask(net.nodes["ada"], 6)
        assert mallory.of(OpenSession)
        assert answer.ids == net.expected(6)


def feeds_nan(me: Outsider, peer: bytes, message: Message) -> None:
    match message:
        case OpenSession(session, hop):
            me.next = message.next
            me.mesh.send(peer, SessionOpened(session, hop))
        case Step(session, hop, position, count):
            bad = np.full((count, 32), np.nan, "<f4").tobytes()
            me.mesh.send(me.next, Step(session, hop + 1, position, count), bad)


@virtual
async def test_a_stage_that_was_fed_rubbish_is_not_taken_for_the_liar() -> None:
    async with swarm() as net, outsider(net, "mallory", feeds_nan) as mallory:
        ada = await net.node("ada", services=frozenset())
        for name in ("bob", "cyd", "dan", "eve"):
            await net.node(name, max_blocks=4)
        await net.covered()
        await mallory.announces(net.model.manifest.model_id, 0, 4, 1100.0)
        begun = asyncio.get_running_loop().time()
        answer = await ask(ada, 4)
        assert mallory.of(Step)
        assert answer.ids == net.expected(4)
        assert answer.reroutes == 1
        assert asyncio.get_running_loop().time() - begun < 5


# --- what a node is told of others --------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "last", "speed"), [(0, 8, 1e-3), (0, 1024, 1e8), (1000, 1024, 1e8)]
)
def test_an_announcement_that_makes_no_sense_sways_nobody(
    first: int, last: int, speed: float
) -> None:
    @virtual
    async def run() -> None:
        async with swarm() as net, outsider(net, "mallory") as mallory:
            await mallory.announces(net.model.manifest.model_id, first, last, speed)
            await net.node("ada", max_blocks=4)
            await net.node("bob", max_blocks=4)
            await asyncio.wait_for(net.covered(), 20)
            assert (await ask(net.nodes["ada"], 6)).ids == net.expected(6)

    run()


@virtual
async def test_an_announcement_of_more_blocks_than_there_are_does_not_hide_what_is_missing() -> (
    None
):
    async with swarm() as net, outsider(net, "mallory") as mallory:
        ada = await net.node("ada")
        await mallory.announces(net.model.manifest.model_id, 0, 1024)
        work = ada._work
        assert work is not None
        await work.holding.unload()
        await work.holding.load(0, 4)
        assert (await ask(ada, 6)).ids == net.expected(6)
