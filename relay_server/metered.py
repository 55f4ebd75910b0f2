"""Counts the bytes of bodies as they leave: what visitors download."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relay_server.counters import Counters

__all__ = ["Metered"]


class Metered:
    """ASGI middleware; bytes as sent, so compressed ones count compressed."""

    def __init__(self, app: ASGIApp, counters: Counters) -> None:
        self._app = app
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.body":
                self._counters.file_bytes += len(message.get("body", b""))
            await send(message)

        await self._app(scope, receive, counted)
