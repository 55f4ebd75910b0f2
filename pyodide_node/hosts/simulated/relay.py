"""A relay's side of a simulated socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from pyodide_node.hosts.base import Buffer

from .pipe import Pipe

__all__ = ["RelayConnection"]


class RelayConnection:
    """What a relay's handler is given: iterate for messages until the host has gone."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._inbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        pipe.received = self._inbox.put_nowait
        pipe.closed = lambda _: self._inbox.put_nowait(None)

    @property
    def host(self) -> str:
        """The name of the host at the other end: what a real relay would know as its address."""
        return self._pipe.there

    @property
    def buffered(self) -> int:
        return self._pipe.buffered

    def send(self, data: Buffer) -> None:
        self._pipe.send(data)

    async def drain(self) -> None:
        await self._pipe.drain()

    async def close(self) -> None:
        await self._pipe.close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (message := await self._inbox.get()) is not None:
            yield message
