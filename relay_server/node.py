"""One connected node, as the relay knows it."""

from __future__ import annotations

import math
from typing import Protocol

from pyodide_node.hosts.base import Buffer
from pyodide_node.wire import limits
from pyodide_node.wire.frames import HEADER
from pyodide_node.wire.messages import Message, to_frame
from relay_server.networks import Network
from relay_server.settings import PARTNERS

__all__ = ["Node", "Socket"]

_LAST_SEQUENCE = 2**32 - 1


class Socket(Protocol):
    """What a node needs of its WebSocket."""

    @property
    def buffered(self) -> int: ...

    @property
    def written(self) -> int: ...

    @property
    def unfinished(self) -> int: ...

    def send(self, *parts: Buffer) -> None: ...

    def welcome(self) -> None: ...

    def hold(self, seconds: float) -> None: ...

    def close(self, code: int, reason: str = "") -> None: ...

    def abort(self) -> None: ...


class Node:
    """State of one connection; `key` is empty until the node has proved it."""

    __slots__ = (
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
        "network",
        "nonce",
        "partners",
        "pinged",
        "publish_state",
        "received",
        "renew_turn_at",
        "sender_body",
        "sent",
        "socket",
        "topics",
    )

    def __init__(
        self, socket: Socket, *, host: str, network: Network, nonce: bytes, now: float
    ) -> None:
        self.socket = socket
        self.host = host
        self.network = network
        self.nonce = nonce
        self.key = b""
        self.sender_body = b""
        """The body of every Forwarded from this node, encoded once."""
        self.announced = b""
        """The model of its announcement."""
        self.topics: tuple[bytes, ...] = ()
        """Models that it subscribes to."""
        self.partners: dict[bytes, None] = {}
        """Nodes that it has written to, the oldest first."""
        self.sent = 0
        self.received = 0
        self.heard = now
        self.pinged = False
        self.left = False
        self.doomed = False
        """Cut, and gone as soon as the loop says so."""
        self.renew_turn_at = math.inf
        """When the TURN credentials that it has should be replaced."""
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

    @property
    def held(self) -> int:
        """Bytes of memory that its slowness takes: what waits for it, and what it has begun."""
        return self.socket.buffered + self.socket.unfinished

    def wrote_to(self, peer: bytes) -> None:
        """From now on that peer may write back."""
        if peer not in self.partners:
            if len(self.partners) >= PARTNERS:
                del self.partners[next(iter(self.partners))]
            self.partners[peer] = None

    def wants(self, sender: Node) -> bool:
        """Whether packets of `sender` are welcome: this node offers itself to all, has written to
        it, or looks for those who serve what the sender does."""
        return (
            sender.key in self.partners
            or bool(self.announced)
            or (bool(sender.announced) and sender.announced in self.topics)
        )

    def stalled_for(self, now: float) -> float:
        """Seconds since something that waited for this node has left; 0 when nothing waits."""
        waiting = self.socket.buffered
        flushed = self.socket.written - waiting
        if not waiting or flushed != self.flushed:
            self.flushed, self.flushed_at = flushed, now
        return now - self.flushed_at
