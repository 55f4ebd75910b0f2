"""What relays tell each other: one message of gossip, and one of the records a new one is given.

Gossip is signed by the relay that it comes from (libp2p's strict signing), so a bulletin needs no
name of its own: it speaks of its relay's nodes only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from pyodide_node.errors import ProtocolError
from pyodide_node.wire.malformed import MALFORMED
from pyodide_node.wire.messages import PublicKey, RecordBytes

__all__ = [
    "BULLETIN",
    "RECORDS",
    "Bulletin",
    "Departed",
    "bulletins",
    "decode_bulletin",
    "encode_bulletin",
]

RECORDS: Final = 64
"""Announcements in one bulletin: about 20 KB, and few enough to check in five milliseconds."""

DEPARTED: Final = 512

BULLETIN: Final = 192 * 1024
"""Bytes of one at most: all of these at their largest."""


class Departed(Struct, frozen=True, array_like=True):
    """A node has left its relay; announcements with a higher number are of a return."""

    public_key: PublicKey
    number: Annotated[int, Meta(ge=0, lt=2**53)]


class Bulletin(Struct, frozen=True, array_like=True):
    relay: Annotated[list[RecordBytes], Meta(max_length=1)] = []
    """The record of the relay itself, at least twice a minute."""
    records: Annotated[list[RecordBytes], Meta(max_length=RECORDS)] = []
    """New announcements of its nodes."""
    departed: Annotated[list[Departed], Meta(max_length=DEPARTED)] = []


_DECODER = msgspec.msgpack.Decoder(Bulletin)
_ENCODER = msgspec.msgpack.Encoder()


def encode_bulletin(bulletin: Bulletin) -> bytes:
    return _ENCODER.encode(bulletin)


def decode_bulletin(data: bytes) -> Bulletin:
    """Raises ProtocolError."""
    if len(data) > BULLETIN:
        raise ProtocolError("a bulletin is too long", size=len(data))
    try:
        bulletin: Bulletin = _DECODER.decode(data)
    except MALFORMED as error:
        raise ProtocolError(f"a malformed bulletin: {error}") from None
    return bulletin


def bulletins(
    relay: bytes, records: Iterable[bytes], departed: Iterable[tuple[bytes, int]] = ()
) -> Iterator[Bulletin]:
    """All of it in as few as it takes, at least one; the first one has the relay's record."""
    said, left = list(records), [Departed(key, number) for key, number in departed]
    yield Bulletin([relay], said[:RECORDS], left[:DEPARTED])
    said, left = said[RECORDS:], left[DEPARTED:]
    while said or left:
        yield Bulletin([], said[:RECORDS], left[:DEPARTED])
        said, left = said[RECORDS:], left[DEPARTED:]
