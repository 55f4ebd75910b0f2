"""What a node says it serves: signed, sensible, or refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pyodide_node.errors import RecordError
from pyodide_node.mesh.announcement import (
    ANNOUNCE_EVERY,
    KIND,
    Announcement,
    announce,
    decode_announcement,
)
from pyodide_node.wire import limits
from pyodide_node.wire.records import Record, verify_record
from tests.wire.keys import keys_of

NOW = 1_790_000_000.25

HONEST: dict[str, Any] = {
    "model": bytes(32),
    "first": 2,
    "last": 6,
    "throughput": 120.0,
    "engine": "webgpu",
    "host": "tab",
    "free_positions": 4096,
}


def record_of(body: bytes, kind: str = KIND) -> Record:
    return Record(kind, bytes(32), 1, int(NOW), int(NOW) + 300, body)


def refused(**wrong: Any) -> str:
    body = msgspec.msgpack.encode(Announcement(**HONEST | wrong))
    with pytest.raises(RecordError) as caught:
        decode_announcement(record_of(body))
    return str(caught.value)


async def test_what_was_announced_is_read_by_others() -> None:
    keys, said = keys_of("ada"), Announcement(**HONEST)
    record = await verify_record(keys_of("bob"), await announce(keys, said, NOW), NOW)
    assert decode_announcement(record) == said
    assert record.public_key == keys.public_key


async def test_a_later_announcement_has_the_higher_number() -> None:
    keys, said = keys_of("ada"), Announcement(**HONEST)
    records = [
        await verify_record(keys, await announce(keys, said, NOW + later), NOW)
        for later in (0, 0.001)
    ]
    assert records[0].number < records[1].number


async def test_it_lives_while_two_more_may_be_missed_and_no_longer_than_records_may() -> None:
    keys, said = keys_of("ada"), Announcement(**HONEST)
    record = await verify_record(keys, await announce(keys, said, NOW), NOW)
    assert 2 * ANNOUNCE_EVERY < record.expires - NOW < limits.RECORD_TTL


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": bytes(31)},
        {"first": -1},
        {"last": 1025},
        {"throughput": 0.0},
        {"throughput": -1.0},
        {"throughput": 1e-320},
        {"throughput": float("nan")},
        {"throughput": float("inf")},
        {"engine": "x" * 33},
        {"host": "mainframe"},
        {"free_positions": -1},
        {"free_positions": 2**31},
        {"region": "x" * 33},
    ],
    ids=str,
)
def test_a_field_out_of_bounds_is_refused(wrong: dict[str, Any]) -> None:
    assert refused(**wrong).startswith("a malformed announcement")


@pytest.mark.parametrize("wrong", [{"last": 1}, {"seeds": [(0, 2), (4, 3)]}], ids=str)
def test_blocks_that_end_before_they_begin_are_refused(wrong: dict[str, Any]) -> None:
    assert refused(**wrong) == "an announcement of blocks that end before they begin"


def test_who_serves_no_blocks_may_still_give_files() -> None:
    said = Announcement(**HONEST | {"first": 0, "last": 0, "seeds": [(2, 4)]})
    told = decode_announcement(record_of(msgspec.msgpack.encode(said)))
    assert not told.serves
    assert told.seeds == [(2, 4)]


def test_a_record_of_another_kind_is_no_announcement() -> None:
    body = msgspec.msgpack.encode(Announcement(**HONEST))
    with pytest.raises(RecordError, match="'invoice' is not an announcement"):
        decode_announcement(record_of(body, kind="invoice"))


@pytest.mark.parametrize("body", [b"", b"\xc0", b"\x91" * 1000], ids=["nothing", "nil", "nested"])
def test_bytes_that_are_no_announcement_are_refused(body: bytes) -> None:
    with pytest.raises(RecordError, match="malformed announcement"):
        decode_announcement(record_of(body))
