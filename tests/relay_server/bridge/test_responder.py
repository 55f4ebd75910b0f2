"""What peers are answered, and what of theirs is kept."""

from __future__ import annotations

import math

import pytest

from relay_server.bridge import limits
from relay_server.bridge.messages import Find, Found, Item, Ping, Store
from relay_server.bridge.peers import PeerTable
from relay_server.bridge.responder import Responder
from relay_server.bridge.values import (
    DICTIONARY,
    REGULAR,
    key_of,
    pack,
    pack_dictionary,
    unpack_dictionary,
)

NOW = 1000.0
KEY = key_of("key")
NODE = b"\1" * 20
OTHER = b"\2" * 20
NOTHING = Found(near=[])


@pytest.fixture
def responder() -> Responder:
    return Responder(PeerTable(bytes(20)), lambda: NOW)


def give(responder: Responder, *items: Item) -> list[bool]:
    return list(responder.stored(Store(items=items), b"peer").ok)


def look(responder: Responder, key: bytes = KEY) -> Found:
    (found,) = responder.found(Find(keys=[key]), b"peer").results
    return found


def item(subkey: bytes = REGULAR, value: bytes = b"\1", life: float = 60.0) -> Item:
    return Item(KEY, subkey, value, NOW + life)


def test_a_ping_tells_who_we_are_and_the_time(responder: Responder) -> None:
    pong = responder.ping(Ping(), b"peer", False)
    assert (pong.node, pong.time, pong.available) == (bytes(20), NOW, False)
    assert len(responder.table) == 0


def test_who_cannot_be_reached_is_not_passed_on(responder: Responder) -> None:
    assert not responder.ping(Ping(node=NODE, validate=True), b"peer", False).available
    assert len(responder.table) == 0
    assert responder.ping(Ping(node=NODE, validate=True), b"peer", True).available
    assert responder.found(Find(keys=[KEY], node=OTHER), b"o").results[0].near == [(NODE, b"peer")]


def test_what_is_stored_is_found(responder: Responder) -> None:
    assert give(responder, item(value=b"\5")) == [True]
    assert look(responder) == Found(value=b"\5", expires=NOW + 60, near=[])
    assert look(responder, key_of("other")) == NOTHING


def test_a_dictionary_is_stored_whole_or_by_subkeys(responder: Responder) -> None:
    whole = pack_dictionary([(pack("a"), b"\1", NOW + 50)])
    assert give(responder, Item(KEY, DICTIONARY, whole, NOW + 50), item(pack("b"))) == [True] * 2
    found = look(responder)
    assert found.dictionary
    assert found.value is not None
    entries = unpack_dictionary(found.value)
    assert entries == [(pack("a"), b"\1", NOW + 50), (pack("b"), b"\1", NOW + 60)]


@pytest.mark.parametrize(
    "wrong",
    [
        item(life=0),
        item(life=-1),
        item(life=math.inf),
        item(life=math.nan),
        item(life=limits.LIFE + 1),
        item(value=bytes(limits.VALUE + 1)),
        item(subkey=pack([1])),
        item(subkey=b"\xa4pee"),
        item(subkey=pack("x" * limits.SUBKEY)),
        item(subkey=pack(b"[owner:ssh-rsa AAAA]")),
        item(subkey=DICTIONARY, value=b"garbage"),
        item(subkey=DICTIONARY, value=pack_dictionary([(pack("a"), b"", math.inf)])),
    ],
    ids=lambda wrong: f"{wrong.subkey[:8]!r} {len(wrong.value)} {wrong.expires}",
)
def test_what_may_not_be_kept_is_refused_by_itself(responder: Responder, wrong: Item) -> None:
    good = Item(key_of("good"), REGULAR, b"\1", NOW + 1)
    assert give(responder, wrong, good) == [False, True]
    assert look(responder) == NOTHING


def test_our_own_records_are_ours(responder: Responder) -> None:
    own = item(pack("us"), b"\7", life=100)
    responder.announce([own])
    assert give(responder, item(pack("us"), b"\0", life=5000)) == [False]
    assert give(responder, item(REGULAR, b"\0", life=5000)) == [False]
    assert give(responder, item(pack("them"), b"\1", life=5000)) == [True]
    value = look(responder).value
    assert value is not None
    assert unpack_dictionary(value) == [
        (pack("us"), b"\7", NOW + 100),
        (pack("them"), b"\1", NOW + 5000),
    ]


def test_an_answer_has_its_size_and_says_whom_to_ask_instead(responder: Responder) -> None:
    responder.ping(Ping(node=NODE), b"peer", False)
    keys = [key_of(str(number)) for number in range(100)]
    big = bytes(limits.VALUE)
    give(responder, *(Item(key, REGULAR, big, NOW + 1) for key in keys))
    results = responder.found(Find(keys=keys, node=OTHER), b"other").results
    held = [found for found in results if found.value is not None]
    assert sum(len(found.value or b"") for found in held) <= limits.ANSWER
    assert 0 < len(held) < len(keys)
    assert all(found.near == [(NODE, b"peer")] for found in results)


def test_a_flood_of_records_takes_bounded_memory(responder: Responder) -> None:
    for batch in range(100):
        items = [
            Item(key_of(f"{batch}.{number}"), REGULAR, bytes(4096), NOW + batch + 1)
            for number in range(200)
        ]
        give(responder, *items)
    assert responder.store.size <= limits.RECORD_BYTES
    assert len(responder.store) <= limits.RECORDS
    assert look(responder, key_of("99.0")).value is not None
