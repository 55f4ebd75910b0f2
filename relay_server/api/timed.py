"""Counts and times the API's requests, whole or not, under the name of their endpoint."""

from __future__ import annotations

import time
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relay_server.counters import Counters

__all__ = ["Timed"]

_GONE: Final = 499
"""nginx's word for a client that left before it was answered."""

_ENDPOINTS: Final = ("/completions", "/chat/completions", "/models")


class Timed:
    """ASGI middleware of the application under `/v1`."""

    def __init__(self, app: ASGIApp, counters: Counters) -> None:
        self._app = app
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = time.monotonic()
        status = _GONE

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception:
            status = 500  # what it will be answered with
            raise
        finally:
            endpoint = _endpoint(scope["path"])
            self._counters.api_requests.labels(endpoint, str(status)).inc()
            self._counters.api_seconds.labels(endpoint).observe(time.monotonic() - begun)


def _endpoint(path: str) -> str:
    """One of few, whatever is asked for."""
    path = path.removeprefix("/v1")
    if path in _ENDPOINTS:
        return path
    return "/models/NAME" if path.startswith("/models/") else "other"
