"""Nodes that have lost their relay come back, but not all at once, and ever more seldom to one in
trouble."""

from __future__ import annotations

import asyncio

from pyodide_node.hosts.simulated import SimulatedNetwork, simulated_host, virtual
from pyodide_node.hosts.simulated.relay import RelayConnection
from pyodide_node.mesh.relay_client import RelayClient
from tests.mesh.test_relay_client import URL, Relay

OTHER = "wss://other.test/mesh"


def now() -> float:
    return asyncio.get_running_loop().time()


def node(network: SimulatedNetwork, name: str, *urls: str) -> RelayClient:
    made = RelayClient(simulated_host(network, name), urls, lambda *_: None, lambda _: None)
    made.start()
    return made


async def closed(nodes: list[RelayClient]) -> None:
    for one in nodes:
        await one.close()


@virtual
async def test_a_crowd_comes_back_spread_over_two_seconds() -> None:
    network = SimulatedNetwork()
    stop = asyncio.Event()
    entered: list[float] = []

    async def handle(connection: RelayConnection) -> None:
        relay = Relay(connection)
        await relay.enter()
        entered.append(now())
        if stop.is_set():
            await relay.stay()
        await stop.wait()

    network.relay(URL, handle)
    nodes = [node(network, f"node {number}", URL) for number in range(200)]
    await asyncio.sleep(1)
    assert len(entered) == 200
    lost = now()
    stop.set()
    await asyncio.sleep(3)
    back = [moment - lost for moment in entered[200:]]
    assert len(back) == 200
    assert max(back) < 2.2
    slots = [sum(slot / 10 <= moment < (slot + 1) / 10 for moment in back) for slot in range(22)]
    assert max(slots) < 30
    await closed(nodes)


@virtual
async def test_a_relay_that_lets_in_and_throws_out_is_asked_ever_more_seldom() -> None:
    network = SimulatedNetwork()
    visits: list[float] = []

    async def handle(connection: RelayConnection) -> None:
        await Relay(connection).enter()
        visits.append(now())

    network.relay(URL, handle)
    nodes = [node(network, "ada", URL)]
    await asyncio.sleep(600)
    assert 20 < len(visits) < 80
    await closed(nodes)


@virtual
async def test_the_next_relay_is_not_stormed_either() -> None:
    network = SimulatedNetwork()
    stop = asyncio.Event()
    moved: list[float] = []

    async def first(connection: RelayConnection) -> None:
        if not stop.is_set():
            await Relay(connection).enter()
            await stop.wait()

    async def second(connection: RelayConnection) -> None:
        relay = Relay(connection)
        await relay.enter()
        moved.append(now())
        await relay.stay()

    network.relay(URL, first)
    network.relay(OTHER, second)
    nodes = [node(network, f"node {number}", URL, OTHER) for number in range(100)]
    await asyncio.sleep(1)
    lost = now()
    stop.set()
    await asyncio.sleep(4)
    after = sorted(moment - lost for moment in moved)
    assert len(after) == 100
    assert after[-1] - after[0] > 1
    await closed(nodes)
