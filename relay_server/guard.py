"""What stands before every HTTP answer: rates, who may see what is the operator's, headers."""

from __future__ import annotations

import asyncio
import hmac
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relay_server.addresses import forwarded_address, is_loopback
from relay_server.counters import Counters
from relay_server.gate import Gate
from relay_server.headers import hardened, headers_for
from relay_server.settings import HTTP_PATIENCE, RelaySettings

__all__ = ["ADMIN_PATHS", "Guard"]

ADMIN_PATHS: Final = frozenset({"/metrics"})
"""For the operator alone."""

_FORWARDING: Final = ("x-forwarded-for", "forwarded", "x-real-ip", "via")


class Guard:
    """ASGI middleware, the outermost."""

    def __init__(
        self, app: ASGIApp, settings: RelaySettings, gate: Gate, counters: Counters
    ) -> None:
        self._app = app
        self._settings = settings
        self._gate = gate
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        peer = scope["client"][0] if scope["client"] else ""
        forwarded = headers.getlist("x-forwarded-for")
        address = forwarded_address(peer, forwarded, self._settings.trusted_proxies)
        tls = scope["scheme"] == "https"

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                hardened(MutableHeaders(scope=message), tls=tls)
            await send(message)

        app = self._app
        pause = self._gate.pause(address)
        if pause > HTTP_PATIENCE:
            self._counters.refused["TooManyRequests"] += 1
            app = _answer(429, "too many requests from this address; come back later")
        elif scope["path"] in ADMIN_PATHS and not self._is_operator(peer, headers):
            app = _answer(403, "for the operator: send the relay's --admin-token")
        elif pause > 0:
            self._counters.throttled += 1
            await asyncio.sleep(pause)
        await app(scope, receive, guarded)

    def _is_operator(self, peer: str, headers: Headers) -> bool:
        token = self._settings.admin_token
        if token:
            scheme, _, sent = headers.get("authorization", "").partition(" ")
            right = hmac.compare_digest(sent.strip().encode(), token.encode())
            return scheme.lower() == "bearer" and right
        return is_loopback(peer) and not any(name in headers for name in _FORWARDING)


def _answer(status: int, text: str) -> ASGIApp:
    more = {"Retry-After": "10"} if status == 429 else {}
    return PlainTextResponse(f"{text}\n", status, headers=headers_for("refusal") | more)
