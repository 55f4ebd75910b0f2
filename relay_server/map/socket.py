"""One viewer's WebSocket: asyncio outside, the sans-IO `websockets` protocol inside.

Anybody may follow the map from any page: it is public, and nothing that a viewer sends is read.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, cast

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from relay_server.addresses import client_address
from relay_server.map.network import NetworkMap
from relay_server.settings import CLOSE_DEADLINE, STOP_DEADLINE

__all__ = ["PATH", "MapSocket"]

PATH: Final = "/map/feed"
_RESTART: Final = 1012
_UNWANTED: Final = 1003
_LONGEST: Final = 125
"""Bytes of a message: there is nothing to say here but pong."""

_LOGGER = logging.getLogger("relay_server.map")
_LOGGER.setLevel(logging.WARNING)  # below it, `websockets` writes headers down, and so addresses


class MapSocket(asyncio.Protocol):
    """Made by uvicorn, with its keywords, at an upgrade. A `Viewer`."""

    __slots__ = ("_conn", "_cut_timer", "_map", "_peers", "_transport", "_trusted")

    def __init__(
        self, network: NetworkMap, trusted: frozenset[str], *, server_state: Any, **_: Any
    ) -> None:
        self._map = network
        self._trusted = trusted
        self._peers: set[Any] = server_state.connections
        self._conn = ServerProtocol(max_size=_LONGEST, logger=_LOGGER)
        self._transport: asyncio.Transport
        self._cut_timer: asyncio.TimerHandle | None = None

    # --- for the feed ---------------------------------------------------------------------

    @property
    def buffered(self) -> int:
        return self._transport.get_write_buffer_size()

    def send(self, frame: bytes) -> None:
        """Write one whole frame; dropped when the socket is closing."""
        if self._conn.state is State.OPEN:
            self._transport.write(frame)

    def ping(self) -> None:
        if self._conn.state is State.OPEN:
            self._conn.send_ping(b"")
            self._flush()

    def abort(self) -> None:
        self._transport.abort()

    # --- for uvicorn ----------------------------------------------------------------------

    def shutdown(self) -> None:
        self._close(_RESTART, "the relay stops; come back in a moment", STOP_DEADLINE)

    # --- asyncio.Protocol -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._peers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._cut_timer is not None:
            self._cut_timer.cancel()
        self._peers.discard(self)
        self._map.feed.leave(self)

    def data_received(self, data: bytes) -> None:
        self._conn.receive_data(data)
        for event in self._conn.events_received():
            if isinstance(event, Request):
                self._upgrade(event)
            elif isinstance(event, Frame):
                self._take(event)
        self._flush()

    def eof_received(self) -> bool:
        return False

    # --- inside ---------------------------------------------------------------------------

    def _upgrade(self, request: Request) -> None:
        conn = self._conn
        address = client_address(self._transport, request.headers, self._trusted)
        response = conn.accept(request)
        if response.status_code == 101:
            refusal = self._map.feed.refuses(address)
            if refusal is not None:
                response = conn.reject(503, f"{refusal}; read /map.json instead\n")
        conn.send_response(response)
        self._flush()
        if conn.state is State.OPEN:
            self._map.enter(self, address)

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PONG:
            self._map.heard(self)
        elif frame.opcode not in (Opcode.PING, Opcode.CLOSE):
            self._close(_UNWANTED, "the map only tells", CLOSE_DEADLINE)

    def _close(self, code: int, reason: str, deadline: float) -> None:
        self._map.feed.leave(self)
        if self._conn.state is State.OPEN:
            self._conn.send_close(code, reason)
        self._flush()
        self._cut_later(deadline)

    def _flush(self) -> None:
        for data in self._conn.data_to_send():
            if data:
                self._transport.write(data)
            else:  # the protocol's sign that the connection is over
                self._map.feed.leave(self)
                self._transport.close()
                self._cut_later(CLOSE_DEADLINE)

    def _cut_later(self, seconds: float) -> None:
        if self._cut_timer is None:
            loop = asyncio.get_running_loop()
            self._cut_timer = loop.call_later(seconds, self._transport.abort)
