"""What addresses share: joins, handshakes, rates, announcements, and the relay's memory."""

from __future__ import annotations

import pytest

from pyodide_node.wire import limits
from pyodide_node.wire.messages import Gone, Pong, Records, Subscribe
from relay_server.settings import CONTROL_SLACK, EVICT_AFTER, GONE_KEPT, RelaySettings
from tests.relay_server.client import MODEL
from tests.relay_server.fakes import FakeNode, World


def at(world: World, name: str, address: str) -> FakeNode:
    """A node at this address, which has not entered."""
    node = FakeNode(world, name)
    node.leave()
    node.node = world.hub.connected(node.socket, "relay.test", address)
    node.take()
    return node


async def entered(world: World, name: str, address: str) -> FakeNode:
    node = FakeNode(world, name)
    node.leave()
    node.take()
    node.node = world.hub.connected(node.socket, "relay.test", address)
    await node.enter()
    node.take()
    return node


def test_one_address_does_not_take_all_handshakes() -> None:
    world = World(RelaySettings(max_handshakes=10, max_handshakes_per_address=3))
    for number in range(3):
        at(world, f"half {number}", "192.0.2.1")
    assert world.hub.refuses("192.0.2.1") == "TooManyHandshakes"
    assert world.hub.refuses("192.0.2.2") is None


def test_old_handshakes_give_way_to_new_ones() -> None:
    world = World(RelaySettings(max_handshakes=2))
    halves = [at(world, f"half {number}", f"192.0.2.{number}") for number in range(2)]
    assert world.hub.refuses("192.0.2.9") == "TooManyHandshakes"  # two honest ones, just begun
    world.clock.now += EVICT_AFTER + 0.1
    assert world.hub.refuses("192.0.2.9") is None
    assert [half.socket.aborted for half in halves] == [True, False]
    assert world.hub.entering == 1
    halves[0].leave()
    assert world.hub.entering == 1


def test_leaving_and_coming_back_is_bounded() -> None:
    world = World(RelaySettings(max_per_address=100, joins_per_address=10))
    joined = 0
    for _ in range(300):
        if world.hub.refuses("2001:db8::1") is None:
            joined += 1
            at(world, "storm", f"2001:db8::{joined:x}").leave()
    assert joined == pytest.approx(100, abs=1)
    assert world.hub.refuses("2001:db8:0:1::1") is None
    world.pass_time(1)
    back = sum(world.hub.refuses("2001:db8::2") is None for _ in range(50))
    assert back == pytest.approx(10, abs=1)


def test_addresses_that_are_gone_are_forgotten() -> None:
    world = World()
    for number in range(1000):
        assert world.hub.refuses(f"10.0.{number >> 8}.{number & 255}") is None
    assert len(world.hub.networks) == 1000
    world.pass_time(1)
    assert len(world.hub.networks) == 0


async def test_nodes_of_one_address_share_its_rate() -> None:
    world = World(RelaySettings(messages_per_address=100))
    crowd = [await entered(world, f"one {n}", "192.0.2.1") for n in range(4)]
    other = await entered(world, "other", "192.0.2.2")
    for _ in range(24):
        for node in (*crowd, other):
            node.send(Pong(0))
    assert not any(node.socket.holds for node in (*crowd, other))
    crowd[0].send(Pong(0))
    other.send(Pong(0))
    assert crowd[0].socket.holds == [pytest.approx(0.01)]
    assert other.socket.holds == []


async def test_bytes_of_one_address_count_before_their_message_is_whole() -> None:
    world = World(RelaySettings(bytes_per_address=100_000))
    one, two = [await entered(world, name, "192.0.2.1") for name in ("one", "two")]
    other = await entered(world, "other", "192.0.2.2")
    world.hub.arrived(one.node, 100_000)
    world.hub.arrived(other.node, 100_000)
    world.hub.arrived(two.node, 50_000)
    assert [node.socket.holds for node in (one, two, other)] == [[], [pytest.approx(0.5)], []]


async def test_announcements_of_one_address_are_bounded() -> None:
    world = World(RelaySettings(max_per_address=4, publishes_per_address=1, joins_per_address=1))
    taken = 0
    for number in range(12):
        node = await entered(world, f"spam {number}", "192.0.2.1")
        await node.publish()
        taken += node.socket.closed is None
        node.leave()
    assert taken == 8
    honest = await entered(world, "honest", "192.0.2.2")
    await honest.publish()
    assert honest.socket.closed is None
    assert len(world.hub.directory) == 1


async def test_a_storm_of_leaving_nodes_is_told_of_in_measure() -> None:
    world = World()
    asker = await world.node("asker")
    asker.send(Subscribe(MODEL))
    for number in range(40):
        node = await world.node(f"storm {number}")
        await node.publish()
        node.leave()
    told = asker.take()[1:]
    assert isinstance(told[0], Records)
    assert len(told) == 1  # the rest waits
    world.run_calls()
    gone = asker.take()
    assert len(gone) == 40
    assert all(isinstance(one, Gone) for one in gone)
    assert world.run_calls() == [40 / 4000]


def test_what_is_still_to_be_told_is_bounded() -> None:
    world = World()
    world.hub.received(at(world, "nobody", "192.0.2.1").node, b"")
    topics = world.hub._topics
    topics.subscribe(at(world, "asker", "192.0.2.2").node, MODEL)
    for number in range(GONE_KEPT + 100):
        topics.gone(MODEL, number.to_bytes(32))
    assert len(topics._topics[MODEL].gone) == GONE_KEPT


# --- memory -------------------------------------------------------------------------------


async def test_unfinished_messages_count_as_memory() -> None:
    world = World(RelaySettings(total_queue_bytes=10 * limits.MESSAGE))
    hoard = [await entered(world, f"hoard {n}", "192.0.2.1") for n in range(12)]
    honest = await entered(world, "honest", "192.0.2.2")
    honest.socket.unfinished = limits.MESSAGE
    for node in hoard[:9]:
        node.socket.unfinished = limits.MESSAGE
    world.pass_time(1)
    assert not any(node.socket.aborted for node in (*hoard, honest))
    for node in hoard:
        node.socket.unfinished = limits.MESSAGE + 1000
    hoard[0].socket.buffered = 4 * limits.MESSAGE
    world.pass_time(1)
    assert hoard[0].socket.aborted  # the worst of the worst address first
    assert sum(node.socket.aborted for node in hoard) == 4
    assert not honest.socket.aborted
    assert world.hub.counters.refused == {"Crowded": 4}


async def test_much_that_arrives_at_once_is_looked_at_before_the_next_sweep() -> None:
    world = World(RelaySettings(total_queue_bytes=1000))
    node = await world.node("node")
    node.socket.buffered = 10_000
    world.hub.arrived(node.node, 100)
    assert not node.socket.aborted
    world.hub.arrived(node.node, 100)
    assert node.socket.aborted


async def test_who_pings_and_reads_no_answer_is_cut() -> None:
    world = World(RelaySettings(queue_bytes=10_000))
    node = await world.node("node")
    node.socket.buffered = 10_000 + CONTROL_SLACK + 1
    world.hub.idled(node.node, 125)
    assert node.socket.aborted
