"""One end of an open connection: what a relay socket and a data channel have in common."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from pyodide_node.hosts.base import Buffer
from pyodide_node.wire.limits import LOW_WATER

if TYPE_CHECKING:
    from .network import SimulatedNetwork

__all__ = ["Pipe"]

OVERHEAD = 40
"""Bytes that headers add to each message on the simulated wire."""


def _ignore(_: object) -> None:
    pass


class Pipe:
    """Sends to `other`; set `received` and `closed` before anything can arrive."""

    def __init__(self, network: SimulatedNetwork, here: str, there: str) -> None:
        self.network = network
        self.here = here
        self.there = there
        self.other: Pipe
        self.received: Callable[[bytes], None] = _ignore
        self.closed: Callable[[str], None] = _ignore
        self.open = True
        self._leaving: deque[tuple[float, int]] = deque()
        self._waiting = 0
        self._drained: set[asyncio.Future[None]] = set()

    @property
    def buffered(self) -> int:
        now = asyncio.get_running_loop().time()
        while self._leaving and self._leaving[0][0] <= now:
            self._waiting -= self._leaving.popleft()[1]
        return self._waiting if self.open else 0

    def send(self, data: Buffer) -> None:
        if self.open:
            payload = bytes(data)  # the sender may reuse its buffer
            size = len(payload) + OVERHEAD
            arrive = partial(self.other._arrive, payload)
            leaves = self.network.direction(self.here, self.there).carry(size, arrive)
            self._leaving.append((leaves, len(payload)))
            self._waiting += len(payload)

    async def drain(self) -> None:
        loop = asyncio.get_running_loop()
        while self.open and (left := self.buffered) >= LOW_WATER:
            leaving = iter(self._leaving)
            while left >= LOW_WATER:
                when, size = next(leaving)
                left -= size
            future: asyncio.Future[None] = loop.create_future()
            timer = loop.call_at(when, _settle, future)
            self._drained.add(future)
            try:
                await future
            finally:
                timer.cancel()
                self._drained.discard(future)

    async def close(self) -> None:
        """Returns once `closed` has been called; the other end hears after what was sent."""
        if self.open:
            end = partial(self.other.lost, "closed by the other side")
            self.network.direction(self.here, self.there).carry(OVERHEAD, end)
            self.lost("closed here")
        await asyncio.sleep(0)

    def lost(self, reason: str) -> None:
        """End this side only: the other has gone, or cannot be told."""
        if self.open:
            self.vanish()
            asyncio.get_running_loop().call_soon(self.closed, reason)

    def vanish(self) -> None:
        """End this side without telling anyone: its host is dead."""
        self.open = False
        self.network.forget(self)
        for future in self._drained:
            _settle(future)

    def _arrive(self, payload: bytes) -> None:
        if self.open:
            self.received(payload)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
