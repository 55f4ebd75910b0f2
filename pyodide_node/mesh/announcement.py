"""What a node says it serves. The body of a signed record of kind `KIND`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from pyodide_node.errors import RecordError
from pyodide_node.hosts.base import Keys
from pyodide_node.wire.malformed import MALFORMED
from pyodide_node.wire.messages import Block, Hash
from pyodide_node.wire.records import Record, sign_body

__all__ = ["ANNOUNCE_EVERY", "KIND", "Announcement", "announce", "decode_announcement"]

KIND = "announcement"
ANNOUNCE_EVERY = 120.0
"""Seconds between announcements."""


Run = tuple[Block, Block]


class Announcement(Struct, frozen=True, array_like=True):
    """This node runs blocks [first, last) of `model` for others; none while it fetches them."""

    model: Hash
    first: Block
    last: Block
    throughput: Annotated[float, Meta(ge=1e-3, lt=1e9)]
    """Positions through one block per second, measured, after the cpu cap. Askers divide by it."""
    engine: Annotated[str, Meta(max_length=32)]
    host: Literal["tab", "native", "simulated"]
    free_positions: Annotated[int, Meta(ge=0, lt=2**31)]
    """Positions of KV cache that new sessions may still claim."""
    region: Annotated[str, Meta(max_length=32)] = ""
    pledge: Annotated[str, Meta(max_length=64)] = ""
    seeds: Annotated[list[Run], Meta(max_length=8)] = []
    """Runs [first, last) of layers whose files it holds whole and gives to others."""
    home: Annotated[bytes, Meta(max_length=32)] = b""
    """The key of the relay that it is on, if that one is known to others."""

    @property
    def serves(self) -> bool:
        """Whether it runs any block."""
        return self.first < self.last


_DECODER = msgspec.msgpack.Decoder(Announcement)


async def announce(keys: Keys, announcement: Announcement, now: float) -> bytes:
    """The signed record of this announcement, made now."""
    return await sign_body(keys, KIND, announcement, now)


def decode_announcement(record: Record) -> Announcement:
    """Raises RecordError for another kind or a body that makes no sense."""
    if record.kind != KIND:
        raise RecordError(f"a record of kind {record.kind!r} is not an announcement")
    try:
        announcement = _DECODER.decode(record.body)
    except MALFORMED as error:
        raise RecordError(f"a malformed announcement: {error}") from None
    if len(announcement.home) not in (0, 32):
        raise RecordError("an announcement names a home that is no key")
    runs = [(announcement.first, announcement.last), *announcement.seeds]
    if any(first > last for first, last in runs):
        raise RecordError("an announcement of blocks that end before they begin", runs=runs)
    return announcement
