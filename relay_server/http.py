"""uvicorn's HTTP connection, with a place to take and with deadlines.

uvicorn waits for ever for a request that has begun to come, for somebody to take an answer, and
for the rest of a body that nobody reads; sockets that do that are cheap to open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

    from relay_server.gate import Gate

__all__ = ["HttpConnection", "Upgrades"]


class Upgrades:
    """What makes WebSockets, one a path, where uvicorn wants one for all. `default` refuses the
    paths that are not its own."""

    def __init__(self, default: Callable[..., Any]) -> None:
        self._default = default
        self.by_path: dict[bytes, Callable[..., Any]] = {}

    def at(self, target: bytes) -> Callable[..., Any]:
        return self.by_path.get(target.partition(b"?")[0], self._default)


class HttpConnection(H11Protocol):
    """One connection until its upgrade; `gate` is told of it and looks at its deadlines."""

    def __init__(self, gate: Gate, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._gate = gate
        self._waiting: int | None = None
        """Bytes of the answer that were not taken yet at the last look."""
        self._since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since = self._gate.now()
        if not self._gate.enter(self, self.client[0] if self.client else ""):
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gate.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.transport.is_closing():
            super().data_received(data)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._gate.leave(self)
        if isinstance(self.ws_protocol_class, Upgrades):
            self.ws_protocol_class = cast(Any, self.ws_protocol_class.at(event.target))
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        self._since = self._gate.now()
        if self.conn.their_state is h11.SEND_BODY:
            self.transport.close()  # what still comes of the body is for nobody
        super().on_response_complete()

    def overdue(self, now: float, deadline: float) -> bool:
        """Whether nothing that it owes has come for longer than `deadline` seconds: the next
        request, or room for the answer."""
        if self.cycle is not None and not self.cycle.response_complete:
            waiting = self.transport.get_write_buffer_size()
            if not waiting or waiting != self._waiting:
                self._since = now  # the application's time, or somebody takes something
            self._waiting = waiting
        return now - self._since > deadline
