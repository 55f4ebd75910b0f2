"""Records are kept until they end, the longer-lived of two, in bounded memory."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from relay_server.bridge import limits
from relay_server.bridge.store import RecordStore
from relay_server.bridge.values import REGULAR, pack, unpack_dictionary

KEY, OTHER = bytes(20), bytes(19) + b"\1"
ONE, TWO = pack("one"), pack("two")

PUTS = st.tuples(
    st.sampled_from([KEY, OTHER]),
    st.sampled_from([REGULAR, ONE, TWO]),
    st.binary(max_size=3),
    st.integers(0, 12).map(float),
    st.integers(0, 10).map(float),
)


def test_a_record_is_there_until_it_ends() -> None:
    store = RecordStore()
    assert store.put(KEY, REGULAR, b"v", 10.0, 0.0)
    held = store.get(KEY, 9.9)
    assert held is not None
    assert (held.value, held.dictionary, held.expires) == (b"v", False, 10.0)
    assert store.get(KEY, 10.0) is None
    assert (len(store), store.size) == (0, 0)


def test_what_has_ended_or_ends_never_in_order_is_refused() -> None:
    store = RecordStore()
    assert not store.put(KEY, REGULAR, b"v", 5.0, 5.0)
    assert not store.put(KEY, REGULAR, b"v", 4.0, 5.0)


def test_the_longer_lived_record_stays() -> None:
    store = RecordStore()
    assert store.put(KEY, ONE, b"1", 10.0, 0.0)
    assert not store.put(KEY, ONE, b"2", 10.0, 0.0)
    assert store.put(KEY, ONE, b"3", 11.0, 0.0)
    assert store.get(KEY, 10.5) is not None


def test_a_dictionary_takes_its_subkeys_one_by_one() -> None:
    store = RecordStore()
    assert store.put(KEY, ONE, b"1", 10.0, 0.0)
    assert store.put(KEY, TWO, b"2", 5.0, 0.0)
    held = store.get(KEY, 1.0)
    assert held is not None
    assert held.dictionary
    assert held.expires == 10.0
    assert unpack_dictionary(held.value) == [(ONE, b"1", 10.0), (TWO, b"2", 5.0)]


def test_a_value_and_a_dictionary_replace_each_other_as_in_hivemind() -> None:
    store = RecordStore()
    store.put(KEY, REGULAR, b"v", 10.0, 0.0)
    assert not store.put(KEY, ONE, b"1", 10.0, 0.0)
    assert store.put(KEY, ONE, b"1", 11.0, 0.0)
    store.put(KEY, TWO, b"2", 20.0, 0.0)
    assert not store.put(KEY, REGULAR, b"v", 15.0, 0.0)
    assert store.put(KEY, REGULAR, b"v", 21.0, 0.0)
    assert len(store) == 1


@given(st.lists(PUTS, max_size=40))
def test_it_does_what_a_plain_list_would(
    puts: list[tuple[bytes, bytes, bytes, float, float]],
) -> None:
    store = RecordStore()
    plain: dict[bytes, dict[bytes, tuple[bytes, float]]] = {KEY: {}, OTHER: {}}
    now = 0.0
    for key, subkey, value, expires, at in puts:
        now = max(now, at)
        for other, records in plain.items():
            plain[other] = {name: one for name, one in records.items() if one[1] > now}
        held = plain[key]
        rivals = held if subkey == REGULAR else held.keys() & {subkey, REGULAR}
        wins = expires > now and all(expires > held[one][1] for one in rivals)
        assert store.put(key, subkey, value, expires, now) is wins
        if wins:
            plain[key] = {one: held[one] for one in held.keys() - set(rivals)}
            plain[key][subkey] = (value, expires)
    assert len(store) == sum(map(len, plain.values()))
    for key, records in plain.items():
        found = store.get(key, now)
        entries = [] if found is None else found.entries
        assert {subkey: (value, expires) for subkey, value, expires in entries} == records


@given(st.lists(st.tuples(st.binary(min_size=20, max_size=20), st.integers(1, 99)), max_size=60))
def test_it_never_holds_more_than_it_may(puts: list[tuple[bytes, int]]) -> None:
    store = RecordStore(records=8, size=3000)
    for key, size in puts:
        store.put(key, REGULAR, bytes(10 * size), float(size), 0.0)
        assert len(store) <= 8
        assert store.size <= 3000


def test_what_ends_first_makes_room() -> None:
    store = RecordStore(records=2)
    for end in (30.0, 10.0, 20.0):
        store.put(bytes([int(end)]) * 20, REGULAR, b"", end, 0.0)
    assert store.get(bytes([10]) * 20, 0.0) is None
    assert store.get(bytes([20]) * 20, 0.0) is not None
    assert not store.put(bytes(20), REGULAR, b"", 5.0, 0.0)


def test_one_key_has_so_many_subkeys() -> None:
    store = RecordStore()
    for number in range(limits.SUBKEYS):
        store.put(KEY, pack(number), b"", 10.0, 0.0)
    assert not store.put(KEY, pack("more"), b"", 10.0, 0.0)
    assert store.put(KEY, pack(0), b"", 11.0, 0.0)


def test_a_record_renewed_for_ever_takes_no_more_memory() -> None:
    store = RecordStore()
    for end in range(1, 10_000):
        assert store.put(KEY, ONE, b"v", float(end), 0.0)
    assert len(store._heap) < 100
    assert math.isclose(store.size, limits.OVERHEAD + 20 + len(ONE) + 1)
