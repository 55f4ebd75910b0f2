"""uvicorn's HTTP connection, with a deadline for the first request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["HttpConnection", "Upgrades"]

FIRST_REQUEST: Final = 15.0
"""Seconds; uvicorn itself waits for ever, and sockets that say nothing are cheap to open."""


class Upgrades:
    """What makes WebSockets, one a path, where uvicorn wants one for all. `default` refuses the
    paths that are not its own."""

    def __init__(self, default: Callable[..., Any]) -> None:
        self._default = default
        self.by_path: dict[bytes, Callable[..., Any]] = {}

    def at(self, target: bytes) -> Callable[..., Any]:
        return self.by_path.get(target.partition(b"?")[0], self._default)


class HttpConnection(H11Protocol):
    """As uvicorn's; later requests have its keep-alive time-out."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline = self.loop.call_later(FIRST_REQUEST, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: Any) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if isinstance(self.ws_protocol_class, Upgrades):
            self.ws_protocol_class = cast(Any, self.ws_protocol_class.at(event.target))
        super().handle_websocket_upgrade(event)

    def _give_up(self) -> None:
        if self.cycle is None:
            self.transport.abort()
