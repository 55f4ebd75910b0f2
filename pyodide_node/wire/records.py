"""Signed records: whatever others pass on. Sans-IO, except that keys verify asynchronously.

On the wire: 64 bytes of Ed25519 signature, then the msgpack envelope exactly as it was signed.
A record is never re-encoded: who passes it on passes these bytes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from pyodide_node.errors import RecordError
from pyodide_node.hosts.base import Keys
from pyodide_node.wire import limits
from pyodide_node.wire.malformed import MALFORMED

__all__ = [
    "Record",
    "check_record",
    "sign_body",
    "sign_record",
    "unpack_record",
    "verify_record",
]

_CONTEXT = b"kwaainet/record/1\0"
_SIGNATURE = 64

_LIFETIME: Final = 330
"""Seconds that what is said again every two minutes lives: two rounds, and some more."""


class Record(Struct, frozen=True, array_like=True):
    """Who says what, until when. Times are whole seconds since 1970."""

    kind: Annotated[str, Meta(max_length=32)]
    public_key: Annotated[bytes, Meta(min_length=32, max_length=32)]
    number: Annotated[int, Meta(ge=0, lt=2**53)]
    """Grows with every record of this peer and kind; the highest is the valid one."""
    issued: Annotated[int, Meta(ge=0, lt=2**40)]
    expires: Annotated[int, Meta(ge=0, lt=2**40)]
    body: Annotated[bytes, Meta(max_length=limits.RECORD)]


_DECODER = msgspec.msgpack.Decoder(Record)


async def sign_record(keys: Keys, record: Record) -> bytes:
    """The record as it travels. `record.public_key` must be the key that signs."""
    envelope = msgspec.msgpack.encode(record)
    signed = await keys.sign(_CONTEXT + envelope) + envelope
    if len(signed) > limits.RECORD or record.public_key != keys.public_key:
        raise RecordError("this record cannot be signed here", size=len(signed))
    return signed


async def sign_body(keys: Keys, kind: str, body: Struct, now: float) -> bytes:
    """A signed record of `body`, made now: it replaces what these keys said before of this kind."""
    record = Record(
        kind=kind,
        public_key=keys.public_key,
        number=int(now * 1000),
        issued=int(now),
        expires=int(now) + _LIFETIME,
        body=msgspec.msgpack.encode(body),
    )
    return await sign_record(keys, record)


def unpack_record(signed: bytes, now: float) -> Record:
    """The envelope, unverified: form and times only. Raises RecordError."""
    if not _SIGNATURE < len(signed) <= limits.RECORD:
        raise RecordError("a record has an impossible size", size=len(signed))
    try:
        record = _DECODER.decode(signed[_SIGNATURE:])
    except MALFORMED as error:
        raise RecordError(f"a malformed record: {error}") from None
    if record.expires <= now:
        raise RecordError("a record has expired", expires=record.expires, now=now)
    if record.issued > now + limits.CLOCK_SKEW:
        raise RecordError("a record comes from the future; check this machine's clock", now=now)
    if not 0 < record.expires - record.issued <= limits.RECORD_TTL:
        raise RecordError("a record claims to live too long", expires=record.expires)
    return record


async def verify_record(keys: Keys, signed: bytes, now: float) -> Record:
    """The record, if its form, times and signature hold. Raises RecordError."""
    record = unpack_record(signed, now)
    if not await keys.verify(record.public_key, signed[:_SIGNATURE], _signed_part(signed)):
        raise _forged(record)
    return record


def check_record(
    verify: Callable[[bytes, bytes, bytes], bool], signed: bytes, now: float
) -> Record:
    """As `verify_record`, for those whose `verify(public_key, signature, data)` is at hand."""
    record = unpack_record(signed, now)
    if not verify(record.public_key, signed[:_SIGNATURE], _signed_part(signed)):
        raise _forged(record)
    return record


def _signed_part(signed: bytes) -> bytes:
    return _CONTEXT + signed[_SIGNATURE:]


def _forged(record: Record) -> RecordError:
    return RecordError("a record is not signed by the key it names", kind=record.kind)
