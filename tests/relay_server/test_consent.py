"""Packets pass only between nodes that both want it: the relay is no way to reach just anybody."""

from __future__ import annotations

from pyodide_node.wire.messages import Forward, Forwarded, Subscribe, Undelivered
from relay_server.settings import PARTNERS, RelaySettings
from tests.relay_server.client import MODEL
from tests.relay_server.fakes import World


async def test_a_stranger_is_not_heard() -> None:
    world = World()
    asker, stranger = await world.node("asker"), await world.node("stranger")
    stranger.send(Forward(asker.key), b"buy!")
    assert stranger.take() == [Undelivered(asker.key, "unwanted")]
    assert asker.take() == []
    assert world.hub.counters.undelivered == {"unwanted": 1}
    assert world.hub.counters.forwarded_frames == 0


async def test_who_announces_itself_hears_from_all() -> None:
    world = World()
    stage, asker = await world.node("stage"), await world.node("asker")
    await stage.publish()
    asker.send(Forward(stage.key), b"please")
    assert stage.take() == [Forwarded(asker.key)]


async def test_who_was_written_to_may_answer() -> None:
    world = World()
    asker, other = await world.node("asker"), await world.node("other")
    asker.send(Forward(other.key), b"unheard, and yet an invitation")
    other.send(Forward(asker.key), b"yes?")
    assert asker.take() == [Undelivered(other.key, "unwanted"), Forwarded(other.key)]


async def test_after_a_restart_a_stage_may_write_to_those_who_look_for_its_model() -> None:
    world = World()
    stage, asker, elsewhere = [await world.node(name) for name in ("stage", "asker", "elsewhere")]
    asker.send(Subscribe(MODEL))
    elsewhere.send(Subscribe(bytes(32)))
    await stage.publish()
    asker.take()
    elsewhere.take()
    stage.send(Forward(asker.key), b"a result")
    stage.send(Forward(elsewhere.key), b"a result")
    assert asker.take() == [Forwarded(stage.key)]
    assert elsewhere.take() == []


async def test_a_node_remembers_so_many_partners() -> None:
    world = World(RelaySettings(messages_per_second=1e9))
    asker, first = await world.node("asker"), await world.node("first")
    asker.hears(first)
    for number in range(PARTNERS - 1):
        asker.send(Forward(number.to_bytes(32)))
    first.send(Forward(asker.key), b"still remembered")
    assert asker.take()[-1] == Forwarded(first.key)
    asker.send(Forward(bytes([1]) * 32))
    first.send(Forward(asker.key), b"forgotten")
    assert len(asker.node.partners) == PARTNERS
    assert first.take() == [Undelivered(asker.key, "unwanted")]
