"""An answer's chunks on their way to whoever asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pyodide_node.hosts.base import Clock
from pyodide_node.inference.generation import Chunk

__all__ = ["ChunkSender"]

_EVERY = 0.01
"""Seconds between chunks of one answer: a screen shows no more, and sending each costs the
node some tenths of a millisecond."""


class ChunkSender:
    """Sends a chunk at once; those that come close behind it together, a moment later."""

    def __init__(self, clock: Clock, send: Callable[[dict[str, Any]], None]) -> None:
        self._clock = clock
        self._send = send
        self._sent = float("-inf")
        self._text: list[str] = []
        self._ids: list[int] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, chunk: Chunk) -> None:
        self._text.append(chunk.text)
        self._ids += chunk.ids
        wait = self._sent + _EVERY - self._clock.monotonic()
        if wait <= 0:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(wait, self.flush)

    def flush(self) -> None:
        """Send what waits; for the end, after which nothing may come."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._text:
            self._sent = self._clock.monotonic()
            self._send({"text": "".join(self._text), "ids": self._ids})
            self._text, self._ids = [], []
