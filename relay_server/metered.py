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
        blob = ""

        async def counted(message: Message) -> None:
            nonlocal blob
            if message["type"] == "http.response.start" and message["status"] < 300:
                # Only files that are there, so that nobody can fill the counter.
                _, found, name = scope["path"].rpartition("/blobs/")
                blob = name if found else ""
            elif message["type"] == "http.response.body":
                size = len(message.get("body", b""))
                self._counters.file_bytes += size
                if blob:
                    self._counters.shard_bytes[blob] += size
            await send(message)

        await self._app(scope, receive, counted)
