"""One connected node, as the relay knows it."""

from __future__ import annotations

from typing import Protocol

from pyodide_node.hosts.base import Buffer
from pyodide_node.wire import limits
from pyodide_node.wire.frames import HEADER
from pyodide_node.wire.messages import Message, to_frame

__all__ = ["Node", "Socket"]

_LAST_SEQUENCE = 2**32 - 1


class Socket(Protocol):
    """What a node needs of its WebSocket."""

    @property
    def buffered(self) -> int: ...

    @property
    def written(self) -> int: ...

    def send(self, *parts: Buffer) -> None: ...

    def welcome(self) -> None: ...

    def hold(self, seconds: float) -> None: ...

    def close(self, code: int, reason: str = "") -> None: ...

    def abort(self) -> None: ...


class Node:
    """State of one connection; `key` is empty until the node has proved it."""

    __slots__ = (
        "address",
        "announced",
        "byte_state",
        "doomed",
        "flushed",
        "flushed_at",
        "heard",
        "host",
        "key",
        "left",
        "message_state",
        "nonce",
        "pinged",
        "publish_state",
        "received",
        "sender_body",
        "sent",
        "socket",
        "topics",
    )

    def __init__(
        self, socket: Socket, *, host: str, address: str, nonce: bytes, now: float
    ) -> None:
        self.socket = socket
        self.host = host
        self.address = address
        self.nonce = nonce
        self.key = b""
        self.sender_body = b""
        """The body of every Forwarded from this node, encoded once."""
        self.announced = b""
        """The model of its announcement."""
        self.topics: tuple[bytes, ...] = ()
        """Models that it subscribes to."""
        self.sent = 0
        self.received = 0
        self.heard = now
        self.pinged = False
        self.left = False
        self.doomed = False
        """Cut, and gone as soon as the loop says so."""
        self.flushed = 0
        self.flushed_at = now
        self.message_state = self.byte_state = self.publish_state = 0.0

    def __str__(self) -> str:
        return f"node {self.key.hex()[:8] or '(unproved)'}"

    def send(self, message: Message) -> None:
        """Encode and write one message of the relay's own."""
        frame = to_frame(message)
        self.write(frame.type, frame.body)

    def write(self, kind: int, body: bytes, payload: Buffer = b"") -> None:
        """Write one frame; its number is the next of this connection."""
        length = len(body) + len(payload)
        header = HEADER.pack(limits.VERSION, kind, len(body), 0, self.sent, length, 0)
        self.sent = self.sent + 1 if self.sent < _LAST_SEQUENCE else 0
        self.socket.send(header, body, payload)

    def stalled_for(self, now: float) -> float:
        """Seconds since something that waited for this node has left; 0 when nothing waits."""
        waiting = self.socket.buffered
        flushed = self.socket.written - waiting
        if not waiting or flushed != self.flushed:
            self.flushed, self.flushed_at = flushed, now
        return now - self.flushed_at
