"""Counting as announcements come and go gives what counting all of them anew gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyodide_node.mesh.announcement import Announcement
from pyodide_node.mesh.directory import Directory, Entry
from pyodide_node.wire.records import Record
from relay_server.map.tally import OTHER, ModelTally, Tally
from relay_server.map.views import MODELS, SPANS, Views
from relay_server.models import Model
from tests.relay_server.client import announcement

IDS = [bytes([number]) * 32 for number in range(4)]

announcements = st.builds(
    Announcement,
    model=st.sampled_from(IDS),
    first=st.integers(0, 6),
    last=st.integers(6, 9),
    throughput=st.floats(0.001, 1e8),
    engine=st.sampled_from(["webgpu", "wasm", "onnxruntime", "<b>mine</b>"]),
    host=st.sampled_from(["tab", "native"]),
    free_positions=st.just(0),
)
peers = st.integers(0, 5).map(lambda number: bytes([number]) * 32)
events = st.lists(st.tuples(peers, st.none() | announcements), max_size=40)


def entry(key: bytes, said: Announcement) -> Entry:
    record = Record("announcement", key, 0, 0, 0, b"")
    return Entry(record=record, announcement=said, signed=b"")


def played(events: Sequence[tuple[bytes, Announcement | None]]) -> tuple[Tally, list[Announcement]]:
    """The tally, and what is announced in the end."""
    tally = Tally()
    held: dict[bytes, Entry] = {}
    for key, said in events:
        before, now = held.get(key), entry(key, said) if said is not None else None
        if now is not None:
            held[key] = now
        else:
            held.pop(key, None)
        if before is not None or now is not None:
            tally.watch(before, now)
    return tally, [entry.announcement for entry in held.values()]


@given(events)
def test_it_is_as_counted_anew(events: list[tuple[bytes, Announcement | None]]) -> None:
    tally, held = played(events)
    serving = [said for said in held if said.serves]
    known = {"webgpu", "wasm", "onnxruntime"}
    engines = Counter(said.engine if said.engine in known else OTHER for said in serving)
    assert tally.nodes == len(serving)
    assert tally.fetching == len(held) - len(serving)
    assert tally.hosts == Counter(said.host for said in serving)
    assert tally.engines == engines
    assert tally.throughput == sum(round(said.throughput * 1000) for said in serving)
    assert set(tally.models) == {said.model for said in held}
    for id, model in tally.models.items():
        mine = [said for said in serving if said.model == id]
        blocks, rates = model.blocks(10)
        for block in range(10):
            here = [said for said in mine if said.first <= block < said.last]
            assert blocks[block] == len(here)
            share = [round(said.throughput * 1000 / (said.last - said.first)) for said in here]
            assert rates[block] == sum(share)
        assert model.last == max((said.last for said in mine), default=0)
        assert {span: nodes for span, (nodes, _) in model.spans.items()} == Counter(
            (said.first, said.last) for said in mine
        )


@given(events)
def test_views_made_on_the_way_are_those_made_at_the_end(
    events: list[tuple[bytes, Announcement | None]],
) -> None:
    tally = Tally()
    views = Views(tally)
    held: dict[bytes, Entry] = {}
    for key, said in events:
        before = held.pop(key, None)
        now = entry(key, said) if said is not None else None
        if now is not None:
            held[key] = now
        if before is not None or now is not None:
            tally.watch(before, now)
        views.models()
    assert views.models() == Views(tally).models()


@given(events)
def test_what_leaves_leaves_nothing(events: list[tuple[bytes, Announcement | None]]) -> None:
    tally, _ = played([*events, *((key, None) for key, _ in events)])
    assert tally.models == {}
    assert (tally.nodes, tally.fetching, tally.throughput) == (0, 0, 0)
    assert not tally.engines
    assert not tally.hosts


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=30))
def test_what_is_said_of_a_models_blocks_follows_from_their_nodes(
    spans: list[tuple[int, int]],
) -> None:
    tally = Tally()
    for number, (first, last) in enumerate(spans):
        said = announcement(IDS[0], min(first, last), max(first, last))
        tally.watch(None, entry(bytes([number]) * 32, said))
    views = Views(tally)
    views.offered = {IDS[0].hex(): Model("m", IDS[0].hex(), 8, 1, "MIT")}
    (view,) = views.models()
    counts = [sum(min(s) <= block < max(s) for s in spans) for block in range(8)]
    assert view.blocks == counts
    assert view.missing == counts.count(0)
    assert view.thin == sum(0 < count < view.thin_below for count in counts)
    assert view.thin_below >= max(2, median(counts) / 4)
    assert view.state == ("whole" if all(counts) else "gaps" if any(counts) else "idle")
    assert (view.rate > 0) == (view.state == "whole")
    listed = views.spans(view.id)
    for block in range(8):
        assert sum(s.nodes for s in listed if s.first <= block < s.last) == counts[block]


def test_a_repeated_announcement_changes_nothing() -> None:
    calls = []
    tally = Tally(lambda: calls.append(1))
    said = announcement()
    tally.watch(None, entry(IDS[0], said))
    (model,) = tally.models.values()
    changes = model.changes
    tally.watch(entry(IDS[0], said), entry(IDS[0], announcement()))
    assert (len(calls), model.changes) == (1, changes)


def test_a_directory_tells_of_all_that_comes_and_goes() -> None:
    heard: list[tuple[bytes, bytes]] = []
    directory = Directory(
        watch=lambda before, now: heard.append(
            (before.signed if before else b"", now.signed if now else b"")
        )
    )

    def record(number: int, expires: int) -> Record:
        body = msgspec.msgpack.encode(announcement())
        return Record("announcement", IDS[0], number, 0, expires, body)

    directory.admit(record(1, 50), b"first", 10)
    directory.admit(record(1, 60), b"repeated", 10)
    directory.admit(record(2, 60), b"second", 10)
    directory.expire(55)
    directory.expire(65)
    directory.remove(IDS[0])
    assert heard == [(b"", b"first"), (b"first", b"second"), (b"second", b"")]


def test_a_stranger_cannot_make_the_map_big() -> None:
    tally = Tally()
    views = Views(tally)
    offered = Model("ours", "ff" * 32, 8, 1, "MIT")
    views.offered = {offered.id: offered}
    for number in range(3 * MODELS):
        id = number.to_bytes(32, "big")
        tally.watch(None, entry(id, announcement(id)))
    for number in range(2 * SPANS):
        first, last = divmod(number, 64)
        said = announcement(IDS[3], first, 64 + last)
        tally.watch(None, entry(number.to_bytes(32, "little"), said))
    models = views.models()
    assert len(models) == MODELS
    assert [model.name for model in models[:2]] == ["ours", ""]
    assert models[1].id == IDS[3].hex()
    assert len(views.spans(models[1].id)) == SPANS
    assert views.totals(models, 0).models == 3 * MODELS + 2


def test_blocks_beyond_a_known_model_do_not_count() -> None:
    tally = Tally()
    tally.watch(None, entry(IDS[0], announcement(IDS[0], 0, 1024)))
    views = Views(tally)
    assert len(views.models()[0].blocks) == 1024
    views.offered = {IDS[0].hex(): Model("m", IDS[0].hex(), 8, 1, "MIT")}
    assert views.models()[0].blocks == [1] * 8


@pytest.mark.parametrize(("first", "last"), [(0, 3), (1, 2), (2, 3)])
def test_a_rate_is_shared_by_the_blocks_of_a_span(first: int, last: int) -> None:
    model = ModelTally()
    model.count(announcement(first=first, last=last), 1)
    _, rates = model.blocks(3)
    assert sum(rates) == pytest.approx(100_000, abs=3)
