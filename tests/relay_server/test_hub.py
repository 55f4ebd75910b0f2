"""What the hub does about slow, silent, fast and crowding nodes, on a clock of our own."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyodide_node.wire import limits
from pyodide_node.wire.frames import HEADER, encode
from pyodide_node.wire.messages import (
    Forward,
    Forwarded,
    Message,
    Ping,
    Pong,
    Refused,
    Undelivered,
    to_frame,
)
from relay_server.rates import Rate
from relay_server.settings import CONTROL_SLACK, RelaySettings
from tests.relay_server.fakes import FakeNode, World
from tests.wire.test_messages import EXAMPLES


def encode_example(message: Message) -> bytes:
    return encode(to_frame(message, b"payload"))


SMALL = RelaySettings(queue_bytes=10_000)


async def test_a_node_is_welcomed_and_answered() -> None:
    world = World()
    node = await world.node("node")
    assert node.socket.welcomed
    node.send(Ping(7))
    assert node.take() == [Pong(7)]


async def test_what_a_slow_node_has_no_room_for_comes_back() -> None:
    world = World(SMALL)
    fast, slow, other = [await world.node(name) for name in ("fast", "slow", "other")]
    for node in (slow, other):
        node.hears(fast)
    slow.socket.reads = False
    for _ in range(3):
        fast.send(Forward(slow.key), bytes(4000))
    assert fast.take() == [Undelivered(slow.key, "full")]
    assert len(slow.take()) == 2
    fast.send(Forward(other.key), bytes(4000))
    assert fast.take() == []
    assert other.take() == [Forwarded(fast.key)]
    slow.socket.drain(slow.socket.buffered)
    fast.send(Forward(slow.key), bytes(4000))
    assert fast.take() == []
    counters = world.hub.counters
    assert (counters.forwarded_frames, counters.forwarded_bytes) == (4, 16_000)
    assert counters.undelivered == {"full": 1}


async def test_a_node_that_takes_nothing_for_long_is_cut() -> None:
    world = World()
    fast, slow = await world.node("fast"), await world.node("slow")
    slow.hears(fast)
    slow.socket.reads = False
    fast.send(Forward(slow.key), bytes(4000))
    world.pass_time(1)
    for _ in range(3):  # a little at a time is slow, but alive
        world.pass_time(world.hub.settings.stall_timeout - 1)
        slow.socket.drain(1000)
        slow.send(Pong(0))
        fast.send(Pong(0))
    assert not slow.socket.aborted
    world.pass_time(1)
    for _ in range(2):
        world.pass_time(world.hub.settings.stall_timeout + 1)
    assert slow.socket.aborted
    assert not fast.socket.aborted
    assert world.hub.counters.refused == {"Stalled": 1}


async def test_a_node_that_does_not_read_the_relay_itself_is_cut() -> None:
    world = World(SMALL)
    node = await world.node("node")
    node.socket.reads = False
    shortest_answer = 50
    for _ in range((SMALL.queue_bytes + CONTROL_SLACK) // shortest_answer):
        node.send(Forward(bytes(32)))
        if node.socket.aborted:
            break
    else:
        pytest.fail("it was never cut")
    node.send(Ping(1))
    assert world.hub.counters.refused == {"Slow": 1}


async def test_a_refusal_is_not_written_to_a_node_that_does_not_read() -> None:
    world = World(SMALL)
    node = await world.node("node")
    node.socket.buffered = 10**9
    node.send(Pong(0))
    node.sequence = 0
    node.send(Pong(0))
    assert node.take() == []
    assert node.socket.closed is not None


async def test_a_silent_node_is_asked_and_then_let_go() -> None:
    world = World()
    node = await world.node("node")
    world.pass_time(29)
    assert node.take() == []
    world.pass_time(2)
    (asked,) = node.take()
    assert isinstance(asked, Ping)
    world.pass_time(2)
    assert node.take() == []
    node.send(Pong(asked.token))
    world.pass_time(31)
    assert isinstance(node.take()[0], Ping)
    world.pass_time(60)
    (refused,) = node.take()
    assert isinstance(refused, Refused)
    assert refused.code == "Idle"
    assert len(world.hub) == 0


async def test_when_all_are_slow_each_may_keep_less() -> None:
    world = World(RelaySettings(total_queue_bytes=limits.MESSAGE))
    fast, one, two = [await world.node(name) for name in ("fast", "one", "two")]
    for slow in (one, two):
        slow.hears(fast)
        slow.socket.reads = False
        fast.send(Forward(slow.key), bytes(3_000_000))
    world.pass_time(1)
    fast.send(Forward(one.key), bytes(2_000_000))
    assert fast.take() == [Undelivered(one.key, "full")]
    two.socket.drain(3_000_000)
    world.pass_time(1)
    fast.send(Forward(one.key), bytes(2_000_000))
    assert fast.take() == []


async def test_a_node_that_sends_too_many_messages_is_read_more_slowly() -> None:
    world = World(RelaySettings(messages_per_second=10))
    node = await world.node("node")
    for _ in range(8):
        node.send(Pong(0))
    assert node.socket.holds == []
    for _ in range(2):
        node.send(Pong(0))
    assert node.socket.holds == [pytest.approx(0.1)]
    world.clock.now += 1
    node.send(Pong(0))
    assert len(node.socket.holds) == 1
    assert world.hub.counters.throttled == 1


async def test_a_node_that_sends_too_much_is_read_more_slowly() -> None:
    world = World(RelaySettings(bytes_per_second=100_000))
    node = await world.node("node")
    node.send(Forward(bytes(32)), bytes(150_000))
    assert node.socket.holds == [pytest.approx(0.5, rel=0.01)]


async def test_frame_numbers_begin_anew_after_the_last() -> None:
    world = World()
    node = await world.node("node")
    node.node.received = node.sequence = 2**32 - 1
    node.send(Pong(0))
    node.sequence = 0
    node.node.sent = 2**32 - 1
    node.send(Ping(1))
    node.send(Ping(2))
    assert node.take() == [Pong(1), Pong(2)]
    assert node.node.sent == 1


async def test_a_node_is_named_in_logs_by_its_key_alone() -> None:
    world = World()
    node = await world.node("node")
    assert str(node.node) == f"node {node.key.hex()[:8]}"
    assert str(FakeNode(world, "new").node) == "node (unproved)"


MESSAGES = st.sampled_from(EXAMPLES).map(encode_example)


@settings(max_examples=200)
@given(st.lists(MESSAGES | st.binary(max_size=80), max_size=20), st.booleans())
async def test_whatever_a_node_sends_another_can_go_on(sent: list[bytes], entered: bool) -> None:
    world = World()
    sender, receiver = await world.node("sender"), await world.node("receiver")
    receiver.hears(sender)
    hostile = await world.node("hostile") if entered else FakeNode(world, "hostile")
    for number, data in enumerate(sent, hostile.sequence):
        if len(data) >= HEADER.size:  # well-numbered, or only the first would be looked into
            data = data[:8] + number.to_bytes(4, "big") + data[12:]
        if hostile.socket.closed is None:
            world.hub.received(hostile.node, data)
    world.pass_time(1)
    world.run_calls()
    sender.send(Forward(receiver.key), b"still here")
    assert receiver.take() == [Forwarded(sender.key)]
    assert len(world.hub) == 2 + (entered and hostile.socket.closed is None)


# --- admission ----------------------------------------------------------------------------


async def test_connections_are_bounded() -> None:
    world = World(RelaySettings(max_connections=2))
    assert world.hub.refuses("192.0.2.1") is None
    first = await world.node("first")
    FakeNode(world, "second")
    assert world.hub.refuses("192.0.2.1") == "Full"
    first.leave()
    assert world.hub.refuses("192.0.2.1") is None
    assert world.hub.counters.refused == {"Full": 1}


async def test_half_open_connections_are_bounded() -> None:
    world = World(RelaySettings(max_handshakes=2))
    first = FakeNode(world, "first")
    FakeNode(world, "second")
    assert world.hub.refuses("192.0.2.1") == "TooManyHandshakes"
    await first.enter()
    assert world.hub.refuses("192.0.2.1") is None


@pytest.mark.parametrize(
    ("mine", "same", "others"),
    [
        ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("::ffff:192.0.2.1", "192.0.2.1", "::ffff:192.0.2.2"),
        ("2001:db8::1", "2001:db8::ffff", "2001:db8:0:1::1"),
        ("fe80::1%eth0", "fe80::2%eth1", "fe80:0:0:1::1"),
        ("::1", "::2", "0.0.0.1"),
        ("unix", "unix", ""),
    ],
)
def test_connections_of_one_address_are_bounded(mine: str, same: str, others: str) -> None:
    world = World(RelaySettings(max_per_address=1))
    node = FakeNode(world, "node")
    world.hub.disconnected(node.node)
    kept = world.hub.connected(node.socket, "relay.test", mine)
    assert world.hub.refuses(same) == "TooManyFromOneAddress"
    assert world.hub.refuses(others) is None
    world.hub.disconnected(kept)
    world.hub.disconnected(kept)
    assert world.hub.refuses(same) is None


def test_a_rate_lets_bursts_pass_and_no_more_than_its_mean() -> None:
    rate = Rate(per_second=2, burst=4)
    state, passed = 0.0, 0
    for step in range(100):
        now = 50 + step / 10
        if rate.excess(rate.spend(state, now), now) <= 0:
            state = rate.spend(state, now)
            passed += 1
    assert passed == pytest.approx(4 + 2 * 10, abs=1)
