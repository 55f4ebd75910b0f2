"""Values are packed as hivemind packs them, and what strangers pack is checked."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyodide_node.errors import ProtocolError
from relay_server.bridge import limits
from relay_server.bridge.values import (
    key_of,
    pack,
    pack_dictionary,
    subkey_of,
    unpack_dictionary,
)

DICTIONARY = bytes.fromhex(
    "c7375093cb7ff0000000000000cb41edcd65000000009193a470656572c412d8409302cb402400000000000081a1"
    "619101cb41edcd6500000000"
)
"""By hivemind 1.1.12, of {"peer": (2, 10.0, {"a": [1]})} until 4e9."""

SUBKEYS = st.one_of(st.text(max_size=60), st.binary(max_size=60), st.integers(-(2**63), 2**64 - 1))
ENTRIES = st.lists(
    st.tuples(SUBKEYS.map(pack), st.binary(max_size=60), st.floats(allow_nan=False)),
    max_size=20,
)


def test_a_key_is_what_hivemind_makes_of_it() -> None:
    assert key_of("my-model.0").hex() == "d750468e7fa48919b2df8641d3f638a0c5000618"


def test_a_tuple_stays_one() -> None:
    packed = "c719409302cb402400000000000081ab73746172745f626c6f636b00"
    assert pack((2, 10.0, {"start_block": 0})).hex() == packed


def test_a_dictionary_is_what_hivemind_packs() -> None:
    entry = (pack("peer"), pack((2, 10.0, {"a": [1]})), 4e9)
    assert pack_dictionary([entry]) == DICTIONARY
    assert unpack_dictionary(DICTIONARY) == [entry]


@given(ENTRIES)
def test_a_dictionary_comes_back_as_it_was(entries: list[tuple[bytes, bytes, float]]) -> None:
    assert unpack_dictionary(pack_dictionary(entries)) == entries


@given(SUBKEYS)
def test_a_subkey_has_one_form(subkey: str | bytes | int) -> None:
    assert subkey_of(pack(subkey)) == pack(subkey)


def test_longer_forms_of_a_subkey_are_the_same_subkey() -> None:
    assert subkey_of(b"\xd9\x04peer") == subkey_of(b"\xa4peer") == pack("peer")


@pytest.mark.parametrize(
    "subkey",
    [
        pack([1]),
        pack({}),
        pack(None),
        pack(True),
        pack(1.5),
        pack((1,)),
        b"",
        b"\xa4pee",
        b"\x01\x02",
    ],
)
def test_what_others_could_not_look_up_is_no_subkey(subkey: bytes) -> None:
    with pytest.raises(ProtocolError, match="subkey"):
        subkey_of(subkey)


def test_a_subkey_has_its_length() -> None:
    with pytest.raises(ProtocolError, match="at most"):
        subkey_of(pack("x" * limits.SUBKEY))


def test_a_dictionary_of_too_many_is_refused() -> None:
    entries = [(pack(number), b"", 1.0) for number in range(limits.SUBKEYS + 1)]
    with pytest.raises(ProtocolError, match="malformed dictionary"):
        unpack_dictionary(pack_dictionary(entries))


@given(st.binary(max_size=200))
def test_garbage_is_no_dictionary(data: bytes) -> None:
    for packed in (data, msgspec.msgpack.encode(msgspec.msgpack.Ext(0x50, data))):
        try:
            unpack_dictionary(packed)
        except ProtocolError:
            continue


def test_an_empty_dictionary_never_began() -> None:
    assert math.isinf(msgspec.msgpack.decode(pack_dictionary([])[3:])[1])
