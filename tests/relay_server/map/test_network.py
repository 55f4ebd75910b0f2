"""When the map is published, to whom, and who is let go: without sockets, on a clock of our own."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from relay_server.hub import Neighbour
from relay_server.map.feed import BEAT, Feed
from relay_server.map.history import LENGTH, History
from relay_server.map.network import PERIOD, RELAYS, NetworkMap
from relay_server.settings import RelaySettings
from tests.relay_server.client import announcement
from tests.relay_server.fakes import World


class FakeViewer:
    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.buffered = 0
        self.pings = 0
        self.aborted = False

    def send(self, frame: bytes) -> None:
        self.frames.append(frame)

    def ping(self) -> None:
        self.pings += 1

    def abort(self) -> None:
        self.aborted = True

    @property
    def told(self) -> list[dict[str, Any]]:
        """What was sent since the last time; frames are unmasked, their length in 1 or 3 bytes."""
        frames, self.frames = self.frames, []
        return [json.loads(frame[2 if frame[1] < 126 else 4 :]) for frame in frames]


class MapWorld(World):
    def __init__(self, settings: RelaySettings | None = None) -> None:
        super().__init__(settings)
        self.map = NetworkMap(self.hub, self.clock, self._later, viewers=100)

    def viewer(self) -> FakeViewer:
        viewer = FakeViewer()
        self.map.enter(viewer, "192.0.2.1")
        return viewer

    def publications(self) -> list[float]:
        """Those that were put off, done; the seconds that each would have waited."""
        mine = [seconds for seconds, call in self.calls if call == self.map.publish]
        self.run_calls()
        return mine


@pytest.fixture
def world() -> MapWorld:
    world = MapWorld()
    world.clock.now += 60  # it has been quiet for a while
    return world


async def test_the_first_change_is_told_at_once_and_others_together(world: MapWorld) -> None:
    viewer = world.viewer()
    assert [message["type"] for message in viewer.told] == ["map"]
    nodes = [await world.node(str(number)) for number in range(5)]
    world.clock.now += PERIOD
    await nodes[0].publish()
    assert world.publications() == [0.0]
    assert [message["totals"]["nodes"] for message in viewer.told] == [1]
    world.clock.now += 0.25
    for node in nodes[1:]:
        await node.publish()
    assert world.publications() == [PERIOD - 0.25]
    assert [message["totals"]["nodes"] for message in viewer.told] == [5]


async def test_only_what_changed_is_told(world: MapWorld) -> None:
    one, two = await world.node("one"), await world.node("two")
    await one.publish(announcement(bytes(32)))
    await two.publish(announcement(bytes([1]) * 32))
    world.publications()
    viewer = world.viewer()
    viewer.told.clear()
    await one.publish(announcement(bytes(32), 0, 2))
    world.clock.now += 1
    await one.publish(announcement(bytes(32), 0, 1))
    world.publications()
    (change,) = viewer.told
    assert [model["id"] for model in change["models"]] == ["00" * 32]
    assert "order" not in change
    assert "relays" not in change
    two.leave()
    world.publications()
    (change,) = viewer.told
    assert change["order"] == ["00" * 32]
    assert "models" not in change


async def test_what_changes_nothing_is_not_told(world: MapWorld) -> None:
    node = await world.node("node")
    await node.publish()
    world.publications()
    viewer = world.viewer()
    viewer.told.clear()
    etag = world.map.document().etag
    world.clock.now += 120
    await node.publish()
    assert world.publications() == []
    world.map.publish()
    assert viewer.told == []
    assert world.map.document().etag == etag


async def test_all_viewers_get_the_same_bytes(world: MapWorld) -> None:
    viewers = [world.viewer() for _ in range(8)]
    node = await world.node("node")
    await node.publish()
    world.publications()
    first, *others = (viewer.frames[-1] for viewer in viewers)
    assert all(frame is first for frame in others)


async def test_nothing_is_encoded_for_nobody(
    world: MapWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(message: object) -> bytes:
        raise AssertionError(message)

    node = await world.node("node")
    await node.publish()
    monkeypatch.setattr(msgspec.json, "encode", fail)
    world.publications()


def test_a_slow_viewer_is_let_go_and_others_go_on() -> None:
    feed = Feed(10)
    slow, quick = FakeViewer(), FakeViewer()
    feed.enter(slow, "192.0.2.1", 0.0)
    feed.enter(quick, "192.0.2.2", 0.0)
    slow.buffered = 1 << 20
    feed.tell(b"{}")
    assert (slow.aborted, slow.frames, len(feed)) == (True, [], 1)
    assert len(quick.frames) == 1
    feed.leave(slow)  # the socket says so too
    assert feed.refuses("192.0.2.1") is None


def test_a_viewer_that_does_not_answer_is_gone() -> None:
    feed = Feed(10)
    silent, awake = FakeViewer(), FakeViewer()
    for viewer in (silent, awake):
        feed.enter(viewer, "192.0.2.1", 0.0)
    for beat in range(1, 5):
        feed.beat(beat * BEAT)
        feed.heard(awake, beat * BEAT)
    assert (silent.aborted, awake.aborted) == (True, False)
    assert (silent.pings, awake.pings) == (3, 4)


def test_one_address_takes_a_tenth_of_the_room() -> None:
    feed = Feed(20)
    mine = [FakeViewer() for _ in range(2)]
    for viewer in mine:
        assert feed.refuses("2001:db8::1") is None
        feed.enter(viewer, "2001:db8::1", 0.0)
    assert feed.refuses("2001:db8::2") == "TooManyFromOneAddress"
    for number in range(18):
        feed.enter(FakeViewer(), f"192.0.2.{number}", 0.0)
    assert feed.refuses("198.51.100.1") == "TooManyViewers"
    for viewer in mine:
        feed.leave(viewer)
        feed.leave(viewer)
    assert feed.refuses("2001:db8::2") is None


async def test_a_beat_is_a_sign_of_life(world: MapWorld) -> None:
    viewer = world.viewer()
    viewer.told.clear()
    await world.node("asks only")
    world.map.beat()
    change, alive = viewer.told
    assert change["totals"]["connected"] == 1
    assert alive == {"type": "alive"}
    assert viewer.pings == 1


async def test_who_comes_sees_connections_that_announced_nothing(world: MapWorld) -> None:
    await world.node("asks only")
    (told,) = world.viewer().told
    assert told["totals"]["connected"] == 1
    await world.node("asks too")
    document = json.loads(world.map.document().data)
    assert document["totals"]["connected"] == 1  # this second's
    world.clock.now += PERIOD
    assert json.loads(world.map.document().data)["totals"]["connected"] == 2


async def test_other_relays_are_listed_by_name(world: MapWorld) -> None:
    viewer = world.viewer()
    viewer.told.clear()
    world.hub.neighbours = [
        Neighbour(b"1" * 32, "wss://small.example/mesh", 3),
        Neighbour(b"0" * 32, "ws://this.example/mesh", 1, own=True),
        Neighbour(b"3" * 32, "wss://buy my <b>coin</b>/mesh", 99),
        Neighbour(b"2" * 32, "wss://large.example:8443/mesh", 50),
    ]
    world.map.beat()
    change = viewer.told[0]
    assert change["relays"] == [
        {"name": "", "own": True, "nodes": 0},
        {"name": "large.example:8443", "own": False, "nodes": 50},
        {"name": "small.example", "own": False, "nodes": 3},
    ]
    world.hub.neighbours *= 2 * RELAYS
    world.clock.now += PERIOD
    assert len(json.loads(world.map.document().data)["relays"]) == RELAYS


async def test_the_history_keeps_a_day_and_counts_what_a_minute_added(world: MapWorld) -> None:
    viewer = world.viewer()
    viewer.told.clear()
    node = await world.node("node")
    await node.publish(announcement(first=1, last=3))
    world.publications()
    counters = world.hub.counters
    for minute in range(LENGTH + 5):
        counters.api_answers += minute
        counters.api_tokens["completion"] += 2
        counters.forwarded_bytes += 10
        world.clock.now += 60
        world.map.remember()
    past = json.loads(world.map.past().data)
    assert {len(column) for column in past.values()} == {LENGTH}
    assert past["answers"] == list(range(5, LENGTH + 5))
    assert set(past["tokens"]) == {2}
    assert set(past["forwarded"]) == {10}
    assert (past["covered"][-1], past["blocks"][-1], past["whole"][-1]) == (2, 3, 0)
    assert past["time"][-1] - past["time"][0] == (LENGTH - 1) * 60
    told = viewer.told[-1]
    assert told == {"type": "sample"} | {name: column[-1] for name, column in past.items()}


def test_an_empty_history_is_one() -> None:
    columns = History(World().hub.counters).columns()
    assert columns["time"] == columns["nodes"] == []


async def test_a_closed_map_is_not_called_any_more(world: MapWorld) -> None:
    world.map.close()
    node = await world.node("node")
    await node.publish()
    assert world.publications() == []
