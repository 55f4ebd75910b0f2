"""What a relay believes of others: hostile ones harm nobody but their own nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pyodide_node.errors import KwaaiNetError, RecordError
from pyodide_node.mesh.announcement import announce
from pyodide_node.wire.relays import RelayInfo, announce_relay
from relay_server.federation.bulletin import (
    BULLETIN,
    DEPARTED,
    RECORDS,
    Bulletin,
    Departed,
    bulletins,
    decode_bulletin,
    encode_bulletin,
)
from relay_server.federation.ledger import Ledger
from tests.relay_server.client import announcement
from tests.wire.keys import keys_of

NOW = 1_790_000_000.0
OWN = keys_of("own").public_key


def key(name: str) -> bytes:
    return keys_of(name).public_key


@cache
def relay(name: str, at: float = NOW, url: str = "") -> bytes:
    info = RelayInfo(url or f"wss://{name}.example/mesh")
    return asyncio.run(announce_relay(keys_of(name), info, at))


@cache
def node(name: str, home: str, at: float = NOW) -> bytes:
    said = msgspec.structs.replace(announcement(), home=key(home) if home else b"")
    return asyncio.run(announce(keys_of(name), said, at))


def said(*records: bytes, by: bytes | None = None, gone: tuple[Departed, ...] = ()) -> bytes:
    return encode_bulletin(Bulletin([by] if by else [], list(records), list(gone)))


def number(at: float) -> int:
    return int(at * 1000)


def ledger(**more: object) -> Ledger:
    return Ledger(OWN, **more)  # type: ignore[arg-type]


def test_a_relay_and_its_nodes_are_taken_once() -> None:
    held = ledger()
    changes = held.take(key("a"), said(node("n", "a"), by=relay("a")), NOW)
    assert changes.relays
    assert [signed for _, signed in changes.announced] == [node("n", "a")]
    assert [one.info.url for one in held.relays] == ["wss://a.example/mesh"]
    again = held.take(key("a"), said(node("n", "a"), by=relay("a")), NOW + 1)
    assert not again.relays
    assert not again.announced
    assert len(held) == 1


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (said(node("n", "b"), by=relay("a")), "whose home it is"),
        (said(node("n", ""), by=relay("a")), "whose home it is"),
        (said(by=relay("b")), "for itself only"),
        (said(by=node("n", "a")), "for itself only"),
        (said(by=node("a", "a")), "not a relay's"),
        (said(relay("a"), by=relay("a")), "not an announcement"),
        (said(node("n", "a", NOW - 3600), by=relay("a")), "expired"),
        (said(node("n", "a", NOW + 3600), by=relay("a")), "future"),
        (said(node("n", "a")[:-1] + b"\xff", by=relay("a")), "malformed|signed"),
        (said(node("n", "a")), "did not introduce itself"),
        (b"junk", "malformed bulletin"),
        (bytes(BULLETIN + 1), "too long"),
    ],
)
def test_what_no_honest_relay_would_say_is_refused_whole(data: bytes, why: str) -> None:
    held = ledger()
    with pytest.raises(KwaaiNetError, match=why):
        held.take(key("a"), data, NOW)
    assert len(held) == 0


def test_older_news_changes_nothing() -> None:
    held = ledger()
    held.take(key("a"), said(node("n", "a", NOW + 5), by=relay("a", NOW + 5)), NOW + 5)
    stale = said(node("n", "a"), by=relay("a", url="wss://old.example/mesh"))
    changes = held.take(key("a"), stale, NOW + 6)
    assert not changes.announced
    assert not changes.relays
    assert held.relays[0].info.url == "wss://a.example/mesh"


def test_a_node_that_left_comes_back_only_with_a_newer_record() -> None:
    held = ledger()
    held.take(key("a"), said(node("n", "a"), by=relay("a")), NOW)
    left = said(gone=(Departed(key("n"), number(NOW)),))
    assert held.take(key("a"), left, NOW + 1).departed == [(key("n"), key("a"))]
    assert not held.take(key("a"), left, NOW + 1).departed
    assert not held.take(key("a"), said(node("n", "a")), NOW + 2).announced
    assert held.take(key("a"), said(node("n", "a", NOW + 3)), NOW + 3).announced
    assert not held.take(key("a"), left, NOW + 4).departed, "that was of before"
    assert len(held) == 1


def test_nobody_says_of_anothers_node_that_it_left() -> None:
    held = ledger()
    held.take(key("a"), said(node("n", "a"), by=relay("a")), NOW)
    left = said(by=relay("b"), gone=(Departed(key("n"), number(NOW + 99)),))
    assert not held.take(key("b"), left, NOW).departed
    assert len(held) == 1


def test_each_relay_has_so_much_room_and_no_more() -> None:
    held = ledger(max_records=5, max_per_relay=3)
    for name in "ab":
        held.take(key(name), said(by=relay(name)), NOW)
        crowd = [node(f"{name}{i}", name) for i in range(5)]
        taken = held.take(key(name), said(*crowd), NOW).announced
        assert len(taken) == {"a": 3, "b": 2}[name]
    assert len(held) == 5


def test_there_is_always_room_for_those_that_the_operator_named() -> None:
    held = ledger(max_relays=3, pinned=[key("friend")])
    for name in "ab":
        held.take(key(name), said(by=relay(name)), NOW)
    with pytest.raises(RecordError, match="room"):
        held.take(key("c"), said(by=relay("c")), NOW)
    held.take(key("friend"), said(by=relay("friend")), NOW)
    assert len(held.relays) == 3


def test_only_those_named_are_believed() -> None:
    held = ledger(only=[key("a")])
    held.take(key("a"), said(by=relay("a")), NOW)
    with pytest.raises(RecordError, match="operator named"):
        held.take(key("b"), said(by=relay("b")), NOW)


def test_who_says_too_much_is_not_heard() -> None:
    held = ledger()
    for _ in range(512):
        held.take(key("a"), said(by=relay("a")), NOW)
    with pytest.raises(RecordError, match="more than any relay"):
        held.take(key("a"), said(by=relay("a")), NOW)
    held.take(key("b"), said(by=relay("b")), NOW)
    held.take(key("a"), said(by=relay("a")), NOW + 60)


def test_keys_that_cost_nothing_take_no_memory() -> None:
    held = ledger(max_relays=2)
    for i in range(100):
        with pytest.raises(KwaaiNetError):
            held.take(i.to_bytes(32, "big"), said(node("n", "a")), NOW)
    assert len(held._rates) <= 8


@pytest.mark.parametrize(("heard", "gone"), [(False, True), (True, False)])
def test_a_lost_relay_has_ten_seconds_to_come_back(heard: bool, gone: bool) -> None:
    held = ledger()
    held.take(key("a"), said(node("n", "a"), by=relay("a")), NOW)
    held.disconnected(key("a"), NOW + 1)
    assert not held.sweep(NOW + 10.9).departed
    if heard:  # by way of others
        held.take(key("a"), said(), NOW + 10)
    changes = held.sweep(NOW + 11.1)
    assert changes.relays is gone
    assert changes.departed == ([(key("n"), key("a"))] if gone else [])


def test_a_relay_that_is_back_stays() -> None:
    held = ledger()
    held.take(key("a"), said(by=relay("a")), NOW)
    held.disconnected(key("a"), NOW + 1)
    held.connected(key("a"))
    assert not held.sweep(NOW + 60).relays
    assert held.sweep(NOW + 91).relays, "but not in silence"


def test_what_expires_is_forgotten() -> None:
    held = ledger()
    held.take(key("a"), said(node("n", "a"), by=relay("a")), NOW)
    held.take(key("a"), said(by=relay("a", NOW + 300)), NOW + 300)
    changes = held.sweep(NOW + 331)
    assert changes.departed == [(key("n"), key("a"))]
    assert not changes.relays


def test_a_relay_believes_nothing_new_of_itself() -> None:
    assert not ledger().take(OWN, b"junk", NOW).relays


@given(st.integers(0, 200), st.integers(0, 1200))
def test_bulletins_carry_all_in_as_few_as_it_takes(records: int, departed: int) -> None:
    some = [bytes([i % 256]) * 300 for i in range(records)]
    left = [(i.to_bytes(32, "big"), i) for i in range(departed)]
    made = [decode_bulletin(encode_bulletin(b)) for b in bulletins(b"relay", some, left)]
    assert [record for one in made for record in one.records] == some
    assert [(d.public_key, d.number) for one in made for d in one.departed] == left
    assert [one.relay for one in made] == [[b"relay"], *([[]] * (len(made) - 1))]
    assert len(made) == max(1, -(-records // RECORDS), -(-departed // DEPARTED))


def test_the_largest_bulletin_that_is_made_is_taken() -> None:
    (one,) = bulletins(bytes(2048), [bytes(2048)] * RECORDS, [(bytes(32), 2**52)] * DEPARTED)
    assert decode_bulletin(encode_bulletin(one)) == one


@given(st.binary(max_size=500))
def test_noise_is_refused(data: bytes) -> None:
    held = ledger()
    try:
        held.take(key("a"), data, NOW)
    except KwaaiNetError:
        return
    pytest.fail("noise was taken")


class Relays(RuleBasedStateMachine):
    """However relays talk, a ledger and a directory that follows it hold the same."""

    def __init__(self) -> None:
        super().__init__()
        self.held = ledger(max_relays=2, max_records=4, max_per_relay=3)
        self.directory: dict[bytes, bytes] = {}
        self.now = NOW

    def follow(self, work: Callable[[], object]) -> None:
        try:
            changes = work()
        except KwaaiNetError:
            return
        for gone, home in changes.departed:  # type: ignore[attr-defined]
            if self.directory.get(gone) == home:
                del self.directory[gone]
        for record, _ in changes.announced:  # type: ignore[attr-defined]
            self.directory[record.public_key] = self.home(record.body)

    @staticmethod
    def home(body: bytes) -> bytes:
        home: bytes = msgspec.msgpack.decode(body)[-1]
        return home

    @rule(by=st.sampled_from("abc"), of=st.sampled_from("abc"), who=st.sampled_from("mno"))
    def announces(self, by: str, of: str, who: str) -> None:
        data = said(node(who + of, of, self.now), by=relay(by, self.now))
        self.follow(lambda: self.held.take(key(by), data, self.now))

    @rule(by=st.sampled_from("abc"), of=st.sampled_from("abc"), who=st.sampled_from("mno"))
    def departs(self, by: str, of: str, who: str) -> None:
        data = said(gone=(Departed(key(who + of), number(self.now)),))
        self.follow(lambda: self.held.take(key(by), data, self.now))

    @rule(seconds=st.sampled_from([1.0, 20.0, 100.0]))
    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.follow(lambda: self.held.sweep(self.now))

    @rule(by=st.sampled_from("abc"))
    def breaks(self, by: str) -> None:
        self.held.disconnected(key(by), self.now)

    @invariant()
    def agree(self) -> None:
        relays = self.held.relays
        assert len(relays) <= 2
        assert all(len(one.nodes) <= 3 for one in relays)
        assert len(self.held) == sum(len(one.nodes) for one in relays) <= 4
        assert self.directory == {n: one.key for one in relays for n in one.nodes}


TestRelays = Relays.TestCase
TestRelays.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
