"""Blocks of a model in one session or, once somebody asked for a part, in several."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pyodide.ffi import to_js

from pyodide_node.errors import EngineError
from pyodide_node.hosts.base import Buffer, Cache
from pyodide_node.hosts.bounds import check_cache, check_step
from pyodide_node.inference.manifest import Manifest

from .errors import awaited, translated

__all__ = ["BrowserCache", "BrowserSpan", "Piece"]


@dataclass(frozen=True, slots=True)
class Piece:
    """One session over blocks [first, last)."""

    first: int
    last: int
    js: Any


class BrowserCache:
    """See `base.Cache`: keys and values lie in the engine's memory, one pair a block."""

    def __init__(self, owner: BrowserSpan, first: int, last: int, capacity: int, js: Any) -> None:
        self.owner = owner
        self.first = first
        self.last = last
        self.held = 0
        """Positions that hold something; a step may begin at most there."""
        self.js = js
        self._capacity = capacity

    @property
    def capacity(self) -> int:
        return self._capacity

    def close(self) -> None:
        if self.js is not None:
            self.owner.release(self.js)
            self.js = None


class BrowserSpan:
    """See `base.Span`. `load` makes a piece, for a split at a new border."""

    def __init__(
        self,
        js: Any,
        manifest: Manifest,
        whole: Piece,
        load: Callable[[int, int], Awaitable[Piece]],
    ) -> None:
        self._js = js
        self._manifest = manifest
        self._load = load
        self._first = whole.first
        self._last = whole.last
        self._pieces = [whole]
        self._borders = {whole.first, whole.last}
        self._arrays: dict[tuple[int, int], Any] = {}
        self._splitting = asyncio.Lock()

    @property
    def first(self) -> int:
        return self._first

    @property
    def last(self) -> int:
        return self._last

    def open_cache(self, first: int, last: int, capacity: int) -> BrowserCache:
        m = self._manifest
        check_cache(first, last, capacity, within=(self.first, self.last), context=m.context_length)
        with translated(EngineError):
            js = self._js.cache(last - first, m.kv_heads, capacity, m.head_dim)
        return BrowserCache(self, first, last, capacity, js)

    def release(self, cache: Any) -> None:
        self._js.closeCache(cache)

    async def run(self, cache: Cache, hidden: Buffer, position: int, count: int) -> bytes:
        """As `base.Span.run`; a first run over a sub-range may also raise what `blob` raises."""
        if not isinstance(cache, BrowserCache) or cache.owner is not self:
            raise EngineError("a cache of another span")
        size = memoryview(hidden).nbytes
        if count < 1 or size != self._manifest.hidden_bytes(count):
            raise EngineError(f"{size} bytes are not {count} hidden states", bytes=size)
        await self._split(cache.first)
        await self._split(cache.last)
        if not self._pieces or cache.js is None:
            raise EngineError("the span or its cache has been closed")
        check_step(cache.held, cache.capacity, position, count)
        # What lies behind is about to be overwritten; several steps may be on their way.
        cache.held = position + count
        try:
            pieces = self._covering(cache.first, cache.last)
            step = self._js.step(pieces, cache.js, hidden, position, count)
            result: bytes = (await awaited(step, EngineError)).to_bytes()
        except EngineError:
            cache.held = min(cache.held, position)
            raise
        return result

    async def close(self) -> None:
        async with self._splitting:
            pieces, self._pieces = self._pieces, []
            for piece in pieces:
                await awaited(self._js.release(piece.js), EngineError)

    def _covering(self, first: int, last: int) -> Any:
        """The sessions of blocks [first, last), as JavaScript's array."""
        if (first, last) not in self._arrays:
            pieces = [p.js for p in self._pieces if first <= p.first and p.last <= last]
            self._arrays[first, last] = to_js(pieces)
        return self._arrays[first, last]

    async def _split(self, border: int) -> None:
        """Let a session end at `border`. Caches stay good: keys and values are per block."""
        if border in self._borders:
            return
        async with self._splitting:
            for index, piece in enumerate(self._pieces):
                if piece.first < border < piece.last:
                    halves = [
                        await self._load(first, last)
                        for first, last in ((piece.first, border), (border, piece.last))
                    ]
                    self._pieces[index : index + 1] = halves
                    self._borders.add(border)
                    self._arrays.clear()
                    await awaited(self._js.release(piece.js), EngineError)
                    return
