"""Frames: how one message becomes bytes and is put together again. Sans-IO.

A frame is a 20-byte header, a msgpack body and raw tensor bytes::

     0        1        2                 4                8
    +--------+--------+-----------------+----------------+
    |version | type   | body length u16 | stream u32     |
    +--------+--------+--------+--------+----------------+
    | sequence u32    | length u32      | offset u32     |
    +-----------------+-----------------+----------------+

`length` is body and tensor together; the bytes after the header are those from `offset` on, so a
whole frame is simply the fragment with offset 0 and nothing missing. One codec therefore serves
WebSockets (whole frames) and data channels (fragments of `limits.CHANNEL_MESSAGE`).

Rules, held by `Reassembler`:
1. The fragments of a message come in order on each path; messages may interleave.
2. Every sequence number is delivered at most once; repeats are dropped, not errors, because two
   paths may carry the same message, whole or in part.
3. Nothing is allocated beyond `PARTIAL_MESSAGES` and `PARTIAL_BYTES`, whatever a header claims.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pyodide_node.errors import LocalError, ProtocolError
from pyodide_node.wire import limits

__all__ = ["HEADER", "Frame", "Reassembler", "encode", "fragments", "parse", "peek_type"]

HEADER = struct.Struct(">BBHIIII")
Buffer = bytes | bytearray | memoryview
_WINDOW = (1 << limits.REPLAY_WINDOW) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One message: `type` says which struct `body` decodes to (see messages.py)."""

    type: int
    stream: int = 0
    sequence: int = 0
    body: bytes = b""
    payload: Buffer = b""

    @property
    def length(self) -> int:
        return len(self.body) + len(self.payload)

    def __str__(self) -> str:
        return f"frame {self.type} #{self.sequence} stream {self.stream} {self.length} B"


def encode(frame: Frame) -> bytes:
    """The whole frame as one message. Raises LocalError when it is over a limit."""
    return b"".join((_header(frame, 0), frame.body, frame.payload))


def fragments(frame: Frame, limit: int = limits.CHANNEL_MESSAGE) -> Iterator[bytes]:
    """The frame as messages of at most `limit` bytes each, header included."""
    room = limit - HEADER.size
    if frame.length <= room:
        yield encode(frame)
        return
    content = memoryview(b"".join((frame.body, frame.payload)))
    for offset in range(0, frame.length, room):
        yield b"".join((_header(frame, offset), content[offset : offset + room]))


def peek_type(data: Buffer) -> int:
    """The type of an encoded frame, without decoding it. Raises ProtocolError."""
    if len(data) < HEADER.size:
        raise ProtocolError("a frame is shorter than its header", size=len(data))
    return data[1]


def parse(data: Buffer) -> Frame:
    """A frame that came whole, as on a WebSocket. Raises ProtocolError. The payload is a view."""
    kind, body_length, stream, sequence, length, offset, content = _split(data)
    if offset or len(content) != length:
        raise ProtocolError("a frame came in fragments where only whole ones go", offset=offset)
    return Frame(
        type=kind,
        stream=stream,
        sequence=sequence,
        body=bytes(content[:body_length]),
        payload=content[body_length:],
    )


def _split(data: Buffer) -> tuple[int, int, int, int, int, int, memoryview]:
    """Header fields and what follows them, as far as one message can show them to be right."""
    if len(data) < HEADER.size:
        raise ProtocolError("a frame is shorter than its header", size=len(data))
    version, kind, body_length, stream, sequence, length, offset = HEADER.unpack_from(data)
    if version != limits.VERSION:
        raise ProtocolError(
            f"frame version {version} is not spoken here; this node speaks {limits.VERSION}",
            version=version,
        )
    if length > limits.MESSAGE or body_length > min(length, limits.BODY):
        raise ProtocolError("a frame is over the limit", length=length, body=body_length)
    piece = memoryview(data)[HEADER.size :]
    if offset + len(piece) > length or (not piece and length):
        raise ProtocolError("a fragment lies outside its message", offset=offset)
    return kind, body_length, stream, sequence, length, offset, piece


def _header(frame: Frame, offset: int) -> bytes:
    if len(frame.body) > limits.BODY or frame.length > limits.MESSAGE:
        raise LocalError(
            f"a message of {frame.length} bytes is over the limit; send it in parts",
            body=len(frame.body),
            length=frame.length,
        )
    return HEADER.pack(
        limits.VERSION,
        frame.type,
        len(frame.body),
        frame.stream,
        frame.sequence,
        frame.length,
        offset,
    )


@dataclass(slots=True)
class _Partial:
    head: tuple[int, int, int, int]
    content: bytearray
    received: int


class Reassembler:
    """Turns received messages of one link, from any of its paths, into frames."""

    def __init__(self) -> None:
        self._partials: dict[int, _Partial] = {}
        self._claimed = 0
        self._highest = -1
        self._seen = 0  # bit k: sequence `highest - k` was delivered (RFC 4303, 3.4.3)

    def feed(self, data: Buffer) -> Frame | None:
        """The frame that `data` completes, or None. Raises ProtocolError."""
        kind, body_length, stream, sequence, length, offset, piece = _split(data)
        if self._is_repeat(sequence):
            return None
        head = (kind, body_length, stream, length)
        if offset == 0 and len(piece) == length:
            self._forget(sequence)
            return self._deliver(head, sequence, piece)
        return self._collect(head, sequence, offset, piece)

    def _collect(
        self, head: tuple[int, int, int, int], sequence: int, offset: int, piece: memoryview
    ) -> Frame | None:
        partial = self._partials.get(sequence)
        if partial is None and offset == 0:
            length = head[3]
            if (
                len(self._partials) >= limits.PARTIAL_MESSAGES
                or self._claimed + length > limits.PARTIAL_BYTES
            ):
                raise ProtocolError("too many unfinished messages", partials=len(self._partials))
            partial = self._partials[sequence] = _Partial(head, bytearray(length), 0)
            self._claimed += length
        elif partial is None or partial.head != head or partial.received < offset:
            raise ProtocolError("a fragment does not follow the one before", sequence=sequence)
        end = offset + len(piece)
        if end <= partial.received:  # the slower path of two, or a message begun anew
            return None
        partial.content[offset:end] = piece
        partial.received = end
        if end < len(partial.content):
            return None
        self._forget(sequence)
        return self._deliver(head, sequence, memoryview(partial.content))

    def _deliver(
        self, head: tuple[int, int, int, int], sequence: int, content: memoryview
    ) -> Frame:
        kind, body_length, stream, _ = head
        if sequence > self._highest:
            # A jump of 2**32 must not become a shift of 2**32 bits.
            jump = min(sequence - self._highest, limits.REPLAY_WINDOW)
            self._seen = (self._seen << jump | 1) & _WINDOW
            self._highest = sequence
            for stale in [s for s in self._partials if sequence - s >= limits.REPLAY_WINDOW]:
                self._forget(stale)  # no longer deliverable: its path failed half-way
        else:
            self._seen |= 1 << (self._highest - sequence)
        return Frame(
            type=kind,
            stream=stream,
            sequence=sequence,
            body=bytes(content[:body_length]),
            payload=content[body_length:],
        )

    def _is_repeat(self, sequence: int) -> bool:
        age = self._highest - sequence
        if age < 0:
            return False
        return age >= limits.REPLAY_WINDOW or bool(self._seen >> age & 1)

    def _forget(self, sequence: int) -> None:
        partial = self._partials.pop(sequence, None)
        if partial is not None:
            self._claimed -= len(partial.content)
