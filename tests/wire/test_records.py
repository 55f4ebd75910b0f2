"""A record passes on only as its signer made it, while it is valid."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyodide_node.errors import RecordError
from pyodide_node.wire import limits
from pyodide_node.wire.records import (
    Record,
    check_record,
    sign_record,
    unpack_record,
    verify_record,
)
from relay_server.entry import verify
from tests.wire.keys import keys_of

NOW = 1_790_000_000.0
ALICE, BOB = keys_of("alice"), keys_of("bob")


def record(
    *,
    kind: str = "announcement",
    number: int = 1,
    issued: float = NOW,
    ttl: float = limits.RECORD_TTL,
    body: bytes = b"what it says",
) -> Record:
    return Record(kind, ALICE.public_key, number, int(issued), int(issued + ttl), body)


async def refusal(signed: bytes, now: float = NOW) -> str:
    """Why this record is refused: the same by both ways of asking."""
    with pytest.raises(RecordError) as awaited:
        await verify_record(BOB, signed, now)
    with pytest.raises(RecordError) as at_once:
        check_record(verify, signed, now)
    assert str(awaited.value) == str(at_once.value)
    return str(at_once.value)


async def test_a_record_is_what_was_signed() -> None:
    signed = await sign_record(ALICE, record())
    assert await verify_record(BOB, signed, NOW) == record()
    assert check_record(verify, signed, NOW) == record()
    assert unpack_record(signed, NOW) == record()


async def test_a_record_signed_by_another_key_is_refused() -> None:
    envelope = msgspec.msgpack.encode(record())
    forged = await BOB.sign(b"kwaainet/record/1\0" + envelope) + envelope
    assert "not signed by the key it names" in await refusal(forged)


async def test_a_signature_for_another_purpose_is_refused() -> None:
    envelope = msgspec.msgpack.encode(record())
    assert "not signed" in await refusal(await ALICE.sign(envelope) + envelope)


async def test_any_changed_byte_is_refused() -> None:
    signed = await sign_record(ALICE, record(ttl=60))
    for position in range(len(signed)):
        changed = bytearray(signed)
        changed[position] ^= 1
        await refusal(bytes(changed))


async def test_an_appended_byte_is_refused() -> None:
    await refusal(await sign_record(ALICE, record()) + b"\0")


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (record(issued=NOW - 400, ttl=360), "expired"),
        (record(issued=NOW - 60, ttl=60), "expired"),
        (record(issued=NOW + limits.CLOCK_SKEW + 1), "from the future"),
        (record(ttl=limits.RECORD_TTL + 1), "too long"),
        (record(issued=NOW - 10**6, ttl=10**6 + 60), "too long"),
        (record(issued=NOW + 60, ttl=-30), "too long"),
    ],
)
async def test_a_record_is_valid_for_a_short_time_around_now(made: Record, reason: str) -> None:
    assert reason in await refusal(await sign_record(ALICE, made))


async def test_a_clock_that_is_a_little_off_is_borne() -> None:
    signed = await sign_record(ALICE, record(issued=NOW + limits.CLOCK_SKEW))
    assert check_record(verify, signed, NOW).number == 1


async def test_a_record_has_a_largest_size() -> None:
    room = limits.RECORD - len(await sign_record(ALICE, record(body=bytes(1000)))) + 1000
    signed = await sign_record(ALICE, record(body=bytes(room)))
    assert len(signed) == limits.RECORD
    assert check_record(verify, signed, NOW).body == bytes(room)
    with pytest.raises(RecordError, match="cannot be signed here"):
        await sign_record(ALICE, record(body=bytes(room + 1)))
    assert "impossible size" in await refusal(signed + b"\0")


async def test_a_record_in_the_name_of_another_is_not_signed() -> None:
    with pytest.raises(RecordError, match="cannot be signed here"):
        await sign_record(BOB, record())


@given(st.binary(max_size=limits.RECORD + 10))
def test_junk_is_refused(junk: bytes) -> None:
    with pytest.raises(RecordError):
        check_record(verify, junk, NOW)


@given(st.lists(st.integers() | st.text(max_size=9) | st.binary(max_size=40), max_size=8))
def test_well_formed_nonsense_is_refused(fields: list[object]) -> None:
    try:
        envelope = msgspec.msgpack.encode(fields)
    except OverflowError:
        return
    with pytest.raises(RecordError):
        check_record(verify, bytes(64) + envelope, NOW)


@pytest.mark.parametrize("depth", [10, 500, 1900])
def test_deep_nesting_in_what_is_skipped_is_refused(depth: int) -> None:
    fields = msgspec.msgpack.encode(["a", ALICE.public_key, 1, int(NOW), int(NOW) + 60, b"", None])
    assert fields[0] == 0x97
    nested = fields[:-1] + b"\x91" * depth + b"\xc0"
    if len(nested) + 64 <= limits.RECORD:
        with pytest.raises(RecordError):
            check_record(verify, bytes(64) + nested, NOW)
