"""One WebSocket of the mesh: asyncio outside, the sans-IO `websockets` protocol inside.

uvicorn hands upgraded connections to a protocol class of one's choice, and this is ours. ASGI
would cost a task, two queues and a pause of the reader for each message; a relay does hardly
anything but pass messages on. What waits for a slow node waits in its transport's buffer, which
is read as `buffered` and bounded by the hub: writing never blocks whoever's message it is.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from typing import TYPE_CHECKING, Any, Final, cast

from websockets.exceptions import PayloadTooBig
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from pyodide_node.hosts.base import Buffer
from pyodide_node.wire import limits
from relay_server.addresses import client_address
from relay_server.origins import may_join
from relay_server.refusal import PROTOCOL, TOO_BIG, Refusal
from relay_server.settings import CLOSE_DEADLINE, HELLO_MESSAGE, READ_SLICE, STOP_DEADLINE

if TYPE_CHECKING:
    from relay_server.hub import Hub
    from relay_server.node import Node

__all__ = ["MeshSocket"]

PATH: Final = "/mesh"
_BINARY: Final = 0x82
_RESTART: Final = 1012
_LOGGER = logging.getLogger("relay_server.websocket")
_LOGGER.setLevel(logging.WARNING)  # below it, `websockets` writes headers down, and so addresses


class MeshSocket(asyncio.Protocol):
    """Speaks for one node with the hub. Made by uvicorn, with its keywords, at an upgrade."""

    __slots__ = (
        "_conn",
        "_cut_timer",
        "_hold_timer",
        "_hub",
        "_node",
        "_open",
        "_parts",
        "_peers",
        "_rest",
        "_transport",
        "written",
    )

    def __init__(self, hub: Hub, *, server_state: Any, **_: Any) -> None:
        self._hub = hub
        self._peers: set[Any] = server_state.connections
        self._conn = ServerProtocol(max_size=HELLO_MESSAGE, logger=_LOGGER)
        self._transport: asyncio.Transport
        self._open = False
        self._node: Node | None = None
        self._parts: bytearray | None = None
        self._rest = b""
        self._cut_timer: asyncio.TimerHandle | None = None
        self._hold_timer: asyncio.TimerHandle | None = None
        self.written = 0
        """Bytes handed to the transport so far; those beyond `buffered` have left."""

    # --- for the hub ----------------------------------------------------------------------

    @property
    def buffered(self) -> int:
        """Bytes that wait because the node takes them slowly."""
        return self._transport.get_write_buffer_size()

    @property
    def unfinished(self) -> int:
        """Bytes of messages that are not whole yet, or wait because the node is too fast."""
        parts = self._parts
        return len(self._conn.reader.buffer) + len(self._rest) + (len(parts) if parts else 0)

    def send(self, *parts: Buffer) -> None:
        """Write one binary message, joined once; dropped when the socket is closing."""
        if not self._open:
            return
        size = sum(map(len, parts))
        if size < 126:
            head = bytes((_BINARY, size))
        elif size < 65536:
            head = struct.pack(">BBH", _BINARY, 126, size)
        else:
            head = struct.pack(">BBQ", _BINARY, 127, size)
        self.written += size + len(head)
        self._transport.write(b"".join((head, *parts)))

    def welcome(self) -> None:
        """From now on messages may have their full size."""
        self._conn.max_message_size = limits.SOCKET_MESSAGE

    def hold(self, seconds: float) -> None:
        """Read nothing for a while: the sender's own TCP connection slows it down."""
        if self._hold_timer is None and not self._transport.is_closing():
            self._transport.pause_reading()
            self._hold_timer = asyncio.get_running_loop().call_later(seconds, self._resume)

    def close(self, code: int, reason: str = "") -> None:
        """Close in the protocol's way, and cut the connection if that takes too long."""
        self._forget()
        if self._conn.state is State.OPEN:
            self._conn.send_close(code, _short(reason))
        self._resume()  # or the node's answer would never be read
        self._flush()
        self._cut_later()

    def abort(self) -> None:
        """Cut the connection; what waited is lost. The hub hears of it in the loop's next turn."""
        self._open = False
        self._transport.abort()

    # --- for uvicorn ----------------------------------------------------------------------

    def shutdown(self) -> None:
        self._cut_later(STOP_DEADLINE)
        self.close(_RESTART, "the relay stops; come back in a moment")

    # --- asyncio.Protocol -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._peers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._cut_timer, self._hold_timer):
            if timer is not None:
                timer.cancel()
        self._cut_timer = self._hold_timer = None
        self._peers.discard(self)
        self._forget()
        # The protocol and its parser hold each other: megabytes must not wait for the collector.
        self._conn.reader.buffer = bytearray()
        self._rest, self._parts = b"", None

    def data_received(self, data: bytes) -> None:
        if self._node is not None:
            self._hub.arrived(self._node, len(data))
        self._read(data)

    def _read(self, data: bytes) -> None:
        conn = self._conn
        for start in range(0, len(data), READ_SLICE):
            if self._hold_timer is not None:
                self._rest = data[start:]
                break
            conn.receive_data(data[start : start + READ_SLICE])
            for event in conn.events_received():
                if isinstance(event, Frame):
                    self._take(event)
                elif isinstance(event, Request):
                    self._upgrade(event)
            if conn.state is not State.OPEN:
                break
        if conn.parser_exc is not None:
            self._unreadable(conn.parser_exc)
        self._flush()

    def eof_received(self) -> bool:
        return False

    # --- inside ---------------------------------------------------------------------------

    def _upgrade(self, request: Request) -> None:
        conn = self._conn
        response = conn.accept(request)
        if request.path.partition("?")[0] != PATH:
            response = conn.reject(404, "the mesh is at /mesh\n")
        elif response.status_code == 101:
            origins, host = request.headers.get_all("Origin"), request.headers.get("Host", "")
            allowed = self._hub.settings.origins
            if not all(may_join(origin, host, allowed) for origin in origins):
                response = conn.reject(403, "this relay does not serve this site\n")
            elif (refusal := self._hub.refuses(self._address(request))) is not None:
                response = conn.reject(503, f"{refusal}\n")
        conn.send_response(response)
        self._flush()
        if conn.state is State.OPEN:
            self._open = True
            host = request.headers.get("Host", "").lower()
            self._node = self._hub.connected(self, host, self._address(request))

    def _address(self, request: Request) -> str:
        return client_address(self._transport, request.headers, self._hub.settings.trusted_proxies)

    def _take(self, frame: Frame) -> None:
        node = self._node
        if node is None:
            return  # nobody is listening any more
        if frame.opcode in (Opcode.PING, Opcode.PONG, Opcode.CLOSE):
            self._hub.idled(node, len(frame.data))  # the protocol has answered
        elif frame.opcode is Opcode.TEXT:
            refusal = Refusal("ProtocolError", "the mesh speaks binary messages only", PROTOCOL)
            self._hub.refuse(node, refusal)
        elif frame.opcode is Opcode.BINARY and frame.fin:
            self._hub.received(node, frame.data)
        else:  # RFC 6455, section 5.4: the pieces of one message
            parts = self._parts = bytearray() if self._parts is None else self._parts
            parts += frame.data
            if frame.fin:
                self._parts = None
                self._hub.received(node, bytes(parts))
            else:
                self._hub.idled(node, len(frame.data))

    def _unreadable(self, error: Exception) -> None:
        node = self._node
        if node is None or isinstance(error, EOFError):
            return
        too_big = isinstance(error, PayloadTooBig)
        text = "a message is over the limit" if too_big else "these are no WebSocket frames"
        # The protocol's close frame waits to be flushed: the reason still goes before it.
        self._hub.refuse(node, Refusal("ProtocolError", text, TOO_BIG if too_big else PROTOCOL))

    def _flush(self) -> None:
        for data in self._conn.data_to_send():
            if data:
                self.written += len(data)
                self._transport.write(data)
            else:  # the protocol's sign that the connection is over
                self._forget()
                self._transport.close()
                self._cut_later()

    def _cut_later(self, seconds: float = CLOSE_DEADLINE) -> None:
        if self._cut_timer is None:
            loop = asyncio.get_running_loop()
            self._cut_timer = loop.call_later(seconds, self._transport.abort)

    def _resume(self) -> None:
        if self._hold_timer is not None:
            self._hold_timer.cancel()
            self._hold_timer = None
            if not self._transport.is_closing():
                rest, self._rest = self._rest, b""
                if rest:
                    self._read(rest)
                if self._hold_timer is None:
                    self._transport.resume_reading()

    def _forget(self) -> None:
        self._open = False
        node, self._node = self._node, None
        if node is not None:
            self._hub.disconnected(node)


def _short(reason: str) -> str:
    """A close reason has 123 bytes (RFC 6455, section 5.5)."""
    return reason.encode()[:123].decode(errors="ignore")
