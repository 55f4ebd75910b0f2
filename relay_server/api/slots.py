"""How many answers may be under way at once, in all and for one key."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from relay_server.api.errors import ApiError

__all__ = ["Slots"]

_RETRY = 2
"""Seconds: an answer takes about that long."""


class Slots:
    def __init__(self, most: int, most_per_key: int) -> None:
        self._most = most
        self._most_per_key = most_per_key
        self._taken: Counter[str] = Counter()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return self._taken.total()

    async def idle(self) -> None:
        """Return when none is taken."""
        await self._idle.wait()

    @contextmanager
    def taken(self, key: str) -> Iterator[None]:
        """One place while it lasts. Raises ApiError when there is none."""
        if self._taken[key] >= self._most_per_key:
            raise ApiError(
                429,
                f"This key has {self._most_per_key} answers under way; wait for one to end.",
                kind="requests",
                code="rate_limit_exceeded",
                retry_after=_RETRY,
            )
        if len(self) >= self._most:
            raise ApiError(
                503,
                "This relay answers as many as it can just now; try again in a moment.",
                kind="server_error",
                code="overloaded",
                retry_after=_RETRY,
            )
        self._taken[key] += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._taken[key] -= 1
            if not self._taken[key]:
                del self._taken[key]
            if not self._taken:
                self._idle.set()
