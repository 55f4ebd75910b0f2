"""What the DHT may hold, without libp2p."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyodide_node.errors import RecordError
from pyodide_node.mesh.announcement import announce
from pyodide_node.wire.records import Record, sign_record, unpack_record
from pyodide_node.wire.relays import RelayInfo, announce_relay
from relay_server.federation.values import Values, check_value, value_key
from tests.relay_server.client import announcement
from tests.wire.keys import keys_of

NOW = 1_790_000_000.5
ALICE = keys_of("alice")
NODE = asyncio.run(announce(ALICE, announcement(), NOW))
RELAY = asyncio.run(announce_relay(ALICE, RelayInfo("wss://relay.example/mesh"), NOW))
NODE_KEY = value_key("announcement", ALICE.public_key)
RELAY_KEY = value_key("relay", ALICE.public_key)


def test_both_kinds_lie_under_their_own_names() -> None:
    assert check_value(NODE_KEY, NODE, NOW).kind == "announcement"
    assert check_value(RELAY_KEY, RELAY, NOW).kind == "relay"


@given(st.binary(min_size=32, max_size=32), st.sampled_from(["announcement", "relay"]))
def test_every_name_is_short_enough_to_be_looked_for(key: bytes, kind: str) -> None:
    assert len(value_key(kind, key).encode()) <= 50


@pytest.mark.parametrize(
    "key", ["", "/", "/kwn/", "/pk/1", NODE_KEY[:-1], f"{NODE_KEY}1", RELAY_KEY]
)
def test_a_node_lies_under_no_other_name(key: str) -> None:
    with pytest.raises(RecordError, match="name of another"):
        check_value(key, NODE, NOW)


async def test_a_third_kind_lies_nowhere() -> None:
    at = int(NOW)
    other = await sign_record(ALICE, Record("other", ALICE.public_key, 1, at, at + 60, b""))
    with pytest.raises(RecordError, match="not a relay's"):
        check_value(value_key("other", ALICE.public_key), other, NOW)


@given(st.data(), st.sampled_from([(NODE_KEY, NODE), (RELAY_KEY, RELAY)]))
def test_no_changed_byte_is_taken(data: st.DataObject, value: tuple[str, bytes]) -> None:
    key, good = value
    at = data.draw(st.integers(0, len(good) - 1))
    changed = bytearray(good)
    changed[at] ^= data.draw(st.integers(1, 255))
    refused: Counter[str] = Counter()
    values = Values(lambda: refused.update(["one"]), lambda: NOW)
    with pytest.raises(RecordError):
        values.validate(key, bytes(changed))
    assert refused["one"] == 1


@given(st.binary(max_size=3000))
def test_noise_is_refused(value: bytes) -> None:
    with pytest.raises(RecordError):
        check_value(NODE_KEY, value, NOW)


@pytest.mark.parametrize("later", [-3600, 330])
def test_what_is_not_of_now_is_refused(later: int) -> None:
    with pytest.raises(RecordError):
        check_value(NODE_KEY, NODE, NOW + later)


@given(st.lists(st.integers(0, 300), min_size=1, max_size=5), st.data())
def test_the_newest_is_chosen(ages: list[int], data: st.DataObject) -> None:
    records = [asyncio.run(announce(ALICE, announcement(), NOW - age)) for age in ages]
    junk = data.draw(st.integers(0, len(records)))
    offered = [*records[:junk], b"junk", *records[junk:]]
    chosen = offered[Values(lambda: None, lambda: NOW).select(NODE_KEY, offered)]
    newest = max(unpack_record(record, NOW).number for record in records)
    assert unpack_record(chosen, NOW).number == newest
