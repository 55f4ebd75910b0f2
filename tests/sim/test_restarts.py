"""Nodes and relays that stop and come back: the swarm is whole again, and no word is changed."""

from __future__ import annotations

import asyncio

import pytest

from pyodide_node.core import KwaaiNetCore
from pyodide_node.hosts.simulated import virtual
from pyodide_node.hosts.simulated.relay import RelayConnection
from relay_server.hub import Hub
from relay_server.settings import RelaySettings

from .swarm import RELAY, Swarm, ask, swarm


def tasks() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks()} - {asyncio.current_task().get_name()}  # type: ignore[union-attr]


@virtual
async def test_a_closed_node_leaves_nothing_running() -> None:
    async with swarm() as net:
        ada = await net.node("ada", max_blocks=4)
        bob = await net.node("bob", max_blocks=4)
        await net.covered()
        await ask(ada, 4)
        asking = asyncio.ensure_future(ask(bob, 40))
        await asyncio.sleep(0.2)
        before = net.nodes.copy()
        await ada.close()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await bob.close()
        await asyncio.sleep(1)
        assert len(before) == 2
        assert not [name for name in tasks() if name.startswith(("link", "relay c", "stage"))]
        assert ada.state == "stopped"


@virtual
async def test_a_worker_restarted_on_its_host_joins_and_serves_again() -> None:
    async with swarm() as net:
        ada = await net.node("ada", max_blocks=4)
        bob = await net.node("bob", max_blocks=4)
        await net.covered()
        first = await ask(ada, 6)
        await bob.close()
        fetched = len(net.hosts["bob"].store.requests)
        bob = await net.node("bob", max_blocks=4)
        assert bob.peer in {hop["peer"] for hop in first.route}
        await net.covered()
        assert (await ask(ada, 6)).ids == net.expected(6)
        blobs = [url for url in net.hosts["bob"].store.requests[fetched:] if "/blobs/" in url]
        assert blobs == []


@pytest.mark.parametrize("seen_at", [0, 3])
def test_a_stage_restarted_midway_with_the_same_keys_costs_one_detour(seen_at: int) -> None:
    @virtual
    async def run() -> None:
        async with swarm() as net:
            ada = await net.node("ada", max_blocks=4)
            bob = await net.node("bob", max_blocks=4)
            await net.covered()
            restarted: list[asyncio.Task[KwaaiNetCore]] = []

            async def restart() -> KwaaiNetCore:
                net.kill("bob")
                await bob.close()
                await asyncio.sleep(0.2)
                net.network.revive("bob")
                return await net.node("bob", max_blocks=4)

            def midway(seen: int) -> None:
                if seen > seen_at and not restarted:
                    restarted.append(asyncio.ensure_future(restart()))

            begun = asyncio.get_running_loop().time()
            answer = await ask(ada, 12, on_token=midway)
            await restarted[0]
            assert answer.ids == net.expected(12)
            assert answer.reroutes == 1
            assert asyncio.get_running_loop().time() - begun < 8
            assert (await ask(ada, 6)).ids == net.expected(6)

    run()


@virtual
async def test_a_node_whose_relay_connection_hiccups_keeps_its_place() -> None:
    async with swarm() as net:
        ada = await net.node("ada", max_blocks=4)
        await net.node("bob", max_blocks=4)
        await net.covered()

        def hiccup(seen: int) -> None:
            if seen == 3:
                node = net.hub._nodes[net.hosts["bob"].keys.public_key]
                node.socket.close(1011)

        begun = asyncio.get_running_loop().time()
        answer = await ask(ada, 12, on_token=hiccup)
        assert answer.ids == net.expected(12)
        assert asyncio.get_running_loop().time() - begun < 5


@virtual
async def test_after_a_relay_restart_everybody_and_all_they_said_is_back() -> None:
    async with swarm() as net:
        for name in ("ada", "bob", "cyd"):
            await net.node(name, max_blocks=4)
        await net.covered()
        await asyncio.sleep(10)
        net.network.kill(RELAY)
        await asyncio.sleep(60)
        assert not any(node._mesh.connected for node in net.nodes.values())
        net.hub = Hub(RelaySettings(), net.hub._clock)
        net.start_relay()
        await asyncio.sleep(40)
        assert len(net.hub.directory) == 3
        for node in net.nodes.values():
            assert len((await node.status())["peers"]) == 2
        await net.node("dan", max_blocks=4)
        await asyncio.sleep(2)
        assert len((await net.nodes["ada"].status())["peers"]) == 3
        assert (await ask(net.nodes["ada"], 6)).ids == net.expected(6)


@virtual
async def test_nodes_do_not_all_come_back_in_the_same_moment() -> None:
    async with swarm() as net:
        names = [f"node{number}" for number in range(8)]
        for name in names:
            await net.node(name)
        net.network.kill(RELAY)
        await asyncio.sleep(20)
        came: list[float] = []

        async def handle(connection: RelayConnection) -> None:
            came.append(asyncio.get_running_loop().time())

        net.network.relay(RELAY, handle)
        await asyncio.sleep(40)
        first = sorted(came)[: len(names)]
        assert len({round(at, 1) for at in first}) >= 6


@virtual
async def test_a_relay_that_never_welcomes_is_told_and_the_node_works_alone() -> None:
    async with swarm() as net:

        async def mute(connection: RelayConnection) -> None:
            async for _ in connection:
                pass

        net.network.relay(RELAY, mute)
        ada = await net.node("ada")
        assert (await ask(ada, 4)).ids == net.expected(4)
        await asyncio.sleep(15)
        assert "did not finish the handshake" in (await ada.status())["relay"]["error"]


@virtual
async def test_a_relay_that_falls_silent_is_left_and_found_again() -> None:
    async with swarm() as net:
        ada = await net.node("ada")
        link = net.network.link("ada", RELAY)
        net.network.silence = 1e6  # nothing ever tells that the socket is dead
        net.network.cut("ada", RELAY)
        await asyncio.sleep(75)
        assert not ada._mesh.connected
        assert "silent" in (await ada.status())["relay"]["error"] or not link.up
        net.network.heal("ada", RELAY)
        await asyncio.sleep(60)
        assert ada._mesh.connected


@virtual
async def test_the_first_relay_that_answers_is_used() -> None:
    async with swarm() as net:
        ada = await net.node("ada", relays=("wss://nowhere.test/mesh", RELAY))
        await asyncio.sleep(5)
        assert (await ada.status())["relay"]["url"] == RELAY


# --- clocks -------------------------------------------------------------------------------


async def skewed(net: Swarm, skew: float) -> KwaaiNetCore:
    net.host("bob").clock.skew = skew
    core = await net.node("bob")
    await asyncio.sleep(20)
    return core


@pytest.mark.parametrize("skew", [180.0, -180.0])
def test_a_clock_three_minutes_off_is_named_and_others_go_on(skew: float) -> None:
    @virtual
    async def run() -> None:
        async with swarm() as net:
            ada = await net.node("ada")
            bob = await skewed(net, skew)
            assert "clock" in (await bob.status())["relay"]["error"]
            assert (await ask(bob, 4)).ids == net.expected(4)
            assert (await ask(ada, 4)).ids == net.expected(4)

    run()


@pytest.mark.parametrize("skew", [100.0, -100.0])
def test_a_clock_somewhat_off_is_borne(skew: float) -> None:
    @virtual
    async def run() -> None:
        async with swarm() as net:
            await net.node("ada")
            bob = await skewed(net, skew)
            assert (await bob.status())["relay"]["error"] == ""
            assert len(net.hub.directory) == 2

    run()
