"""Nodes hear who serves a model: at once, from then on, and when one leaves."""

from __future__ import annotations

import time

import msgspec

from pyodide_node.mesh.announcement import KIND, announce
from pyodide_node.wire.messages import Gone, Pong, Publish, Records, Subscribe
from pyodide_node.wire.records import Record, sign_record
from relay_server import Relay, RelaySettings
from tests.relay_server.client import MODEL, Client, announcement
from tests.relay_server.fakes import FakeNode, World

OTHER_MODEL = bytes(32)
NOBODY = Records([])
"""The first answer to a subscription where nobody serves the model yet."""


async def test_a_subscriber_hears_of_those_already_here(relay: Relay) -> None:
    async with Client(relay.mesh_url) as server, Client(relay.mesh_url) as asker:
        await asker.hears(server)
        record = await server.publish()
        await server.forward(asker.key, b"published")
        await asker.forwarded()
        await asker.subscribe()
        assert await asker.records(1) == [record]


async def test_a_subscriber_hears_of_changes_as_the_same_bytes(relay: Relay) -> None:
    async with Client(relay.mesh_url) as server, Client(relay.mesh_url) as asker:
        await asker.subscribe()
        first = await server.publish()
        assert await asker.records(1) == [first]
        second = await server.publish(announcement(first=1), time.time() + 1)
        assert await asker.records(1) == [second]


async def test_who_leaves_is_gone_at_once(relay: Relay) -> None:
    async with Client(relay.mesh_url) as asker:
        await asker.subscribe()
        async with Client(relay.mesh_url) as server:
            await server.publish()
            await asker.records(1)
        assert await asker.expect(Gone) == Gone(server.key)
        assert len(relay.hub.directory) == 0


async def test_more_records_than_fit_come_in_batches() -> None:
    world = World()
    expected = set()
    for number in range(60):
        expected.add(await (await world.node(f"server {number}")).publish())
    asker = await world.node("asker")
    asker.send(Subscribe(MODEL))
    batches = asker.take()
    assert [len(batch.records) for batch in batches if isinstance(batch, Records)] == [25, 25, 10]
    assert {r for batch in batches if isinstance(batch, Records) for r in batch.records} == expected


async def test_a_node_is_not_told_what_it_said_itself() -> None:
    world = World()
    node = await world.node("node")
    node.send(Subscribe(MODEL))
    await node.publish()
    assert node.take() == [NOBODY]


async def test_subscribing_again_tells_nothing_new() -> None:
    world = World()
    server, asker = await world.node("server"), await world.node("asker")
    await server.publish()
    asker.send(Subscribe(MODEL))
    assert len(asker.take()) == 1
    asker.send(Subscribe(MODEL))
    assert asker.take() == []


async def test_another_model_is_not_heard_of() -> None:
    world = World()
    server, asker = await world.node("server"), await world.node("asker")
    asker.send(Subscribe(OTHER_MODEL))
    await server.publish()
    server.leave()
    assert asker.take() == [NOBODY]


async def test_who_serves_another_model_now_is_gone_from_the_first() -> None:
    world = World()
    server, asker, other = [await world.node(name) for name in ("server", "asker", "other")]
    asker.send(Subscribe(MODEL))
    other.send(Subscribe(OTHER_MODEL))
    await server.publish()
    world.clock.now += 1
    record = await server.publish(announcement(OTHER_MODEL))
    world.run_calls()
    assert asker.take()[2:] == [Gone(server.key)]
    assert other.take() == [NOBODY, Records([record])]


async def test_an_old_number_changes_nothing() -> None:
    world = World()
    server, asker = await world.node("server"), await world.node("asker")
    record = await server.publish()
    asker.send(Subscribe(MODEL))
    asker.take()
    server.send(Publish(record))
    assert asker.take() == server.take() == []
    assert server.socket.closed is None


async def test_expired_records_are_forgotten() -> None:
    world = World()
    server = await world.node("server")
    await server.publish()
    for _ in range(4):
        world.pass_time(85)
        server.send(Pong(0))
    world.pass_time(1)
    assert len(world.hub.directory) == 0
    asker = await world.node("asker")
    asker.send(Subscribe(MODEL))
    assert asker.take() == [NOBODY]


async def test_many_changes_share_messages_when_many_listen() -> None:
    world = World()
    listeners = [await world.node(f"listener {n}") for n in range(40)]
    for listener in listeners:
        listener.send(Subscribe(MODEL))
    servers = [await world.node(f"server {n}") for n in range(30)]
    records = [await server.publish() for server in servers]
    assert listeners[0].take() == [NOBODY, Records(records[:1])]
    assert world.run_calls() == [40 / 4000]
    batches = listeners[0].take()
    assert batches == [Records(records[1:26]), Records(records[26:])]
    assert world.run_calls() == [2 * 40 / 4000]
    assert listeners[0].take() == []
    assert world.run_calls() == []


async def test_who_leaves_before_it_was_heard_of_is_only_gone() -> None:
    world = World()
    asker, first, second = [await world.node(name) for name in ("asker", "first", "second")]
    asker.send(Subscribe(MODEL))
    record = await first.publish()
    await second.publish()
    second.leave()
    world.run_calls()
    assert asker.take() == [NOBODY, Records([record]), Gone(second.key)]


async def test_a_model_that_nobody_listens_to_any_more_is_let_go() -> None:
    world = World()
    asker, server = await world.node("asker"), await world.node("server")
    asker.send(Subscribe(MODEL))
    await server.publish()
    asker.leave()
    world.run_calls()
    world.clock.now += 1
    await server.publish()
    assert world.calls == []


# --- refused ------------------------------------------------------------------------------


def refusal(node: FakeNode) -> str:
    refused = node.take()[-1]
    assert node.socket.closed is not None
    assert node.socket.closed[0] == 1008
    return str(getattr(refused, "code", refused))


async def test_the_record_of_another_is_refused(relay: Relay) -> None:
    async with Client(relay.mesh_url) as server, Client(relay.mesh_url) as thief:
        await thief.send(Publish(await announce(server.keys, announcement(), time.time())))
        assert await thief.refused() == ("NotYours", 1008)
        assert len(relay.hub.directory) == 0


async def test_a_record_that_does_not_verify_is_refused(relay: Relay) -> None:
    async with Client(relay.mesh_url) as node:
        record = await announce(node.keys, announcement(), time.time())
        await node.send(Publish(record[:-1] + bytes([record[-1] ^ 1])))
        assert await node.refused() == ("RecordError", 1008)


async def test_a_record_of_another_kind_is_refused() -> None:
    world = World()
    node = await world.node("node")
    now = int(world.clock.wall())
    record = Record("gossip", node.key, 1, now, now + 60, b"")
    node.send(Publish(await sign_record(node.keys, record)))
    assert refusal(node) == "RecordError"


async def test_a_record_that_announces_nonsense_is_refused() -> None:
    for body in (b"", b"\xc0", msgspec.msgpack.encode(announcement(first=3, last=2))):
        world = World()
        node = await world.node("node")
        now = int(world.clock.wall())
        record = Record(KIND, node.key, 1, now, now + 60, body)
        node.send(Publish(await sign_record(node.keys, record)))
        assert refusal(node) == "RecordError"


async def test_an_expired_record_is_refused() -> None:
    world = World()
    node = await world.node("node")
    node.send(Publish(await announce(node.keys, announcement(), world.clock.wall() - 340)))
    assert refusal(node) == "RecordError"


async def test_too_many_announcements_are_refused() -> None:
    world = World(RelaySettings(publish_burst=2, publishes_per_second=1))
    node = await world.node("node")
    for _ in range(5):
        await node.publish()
        world.clock.now += 1
    assert node.socket.closed is None
    for _ in range(3):
        await node.publish()
    assert refusal(node) == "RateLimited"


async def test_a_full_directory_sends_newcomers_elsewhere() -> None:
    world = World(RelaySettings(max_records=1))
    first, second = await world.node("first"), await world.node("second")
    await first.publish()
    await second.publish()
    assert refusal(second) == "RecordError"
    assert len(world.hub.directory) == 1


async def test_too_many_subscriptions_are_refused() -> None:
    world = World(RelaySettings(max_topics=2))
    node = await world.node("node")
    for number in range(3):
        node.send(Subscribe(bytes([number]) * 32))
    assert refusal(node) == "TooManyTopics"
