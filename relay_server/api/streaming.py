"""Server-sent events to a client that may be slow, or leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import AsyncExitStack, aclosing
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from relay_server.api.limits import STALL

__all__ = ["EventStream", "while_connected"]

T = TypeVar("T")


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` returns; it is cancelled, and None returned, when the client leaves.

    The request's body must have been read.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Sends `events` as they come; they, and then `stack`, are closed in every case."""

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncGenerator[bytes, None], stack: AsyncExitStack, headers: dict[str, str]
    ) -> None:
        self._events = events
        self._stack = stack
        # nginx holds streams back unless it is told not to.
        told = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", **headers}
        super().__init__(headers=told)
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack, aclosing(self._events):
            await while_connected(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async for data in self._events:
                async with asyncio.timeout(STALL):
                    await send({"type": "http.response.body", "body": data, "more_body": True})
        except TimeoutError:
            return  # nobody reads: the connection ends without its last chunk, as it should
        await send({"type": "http.response.body", "body": b"", "more_body": False})
