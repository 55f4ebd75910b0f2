"""Blocks of a model in a tab: steps through the sessions that hold them."""

from __future__ import annotations

from typing import Any

from pyodide.ffi import to_js

from pyodide_node.errors import EngineError
from pyodide_node.hosts.base import Buffer, Cache
from pyodide_node.hosts.bounds import check_cache, check_step
from pyodide_node.hosts.sessions import Piece, Sessions
from pyodide_node.model.manifest import Manifest

from .errors import awaited, translated

__all__ = ["BrowserCache", "BrowserSpan"]


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
    """See `base.Span`. `half`: its graphs keep keys and values in float16."""

    def __init__(
        self,
        js: Any,
        manifest: Manifest,
        sessions: Sessions[Any],
        blocks: tuple[int, int],
        *,
        half: bool,
    ) -> None:
        self._js = js
        self._manifest = manifest
        self._sessions = sessions
        self._first, self._last = blocks
        self._half = half
        self._arrays: dict[tuple[int, int], tuple[list[Piece[Any]], Any]] = {}

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
            js = self._js.cache(last - first, m.kv_heads, capacity, m.head_dim, self._half)
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
        pieces = await self._sessions.covering(cache.first, cache.last)
        if cache.js is None:
            raise EngineError("the cache has been closed")
        check_step(cache.held, cache.capacity, position, count)
        # What lies behind is about to be overwritten; several steps may be on their way.
        cache.held = position + count
        try:
            step = self._js.step(self._array(pieces), cache.js, hidden, position, count)
            result: bytes = (await awaited(step, EngineError)).to_bytes()
        except EngineError:
            cache.held = min(cache.held, position)
            raise
        return result

    async def close(self) -> None:
        await self._sessions.close()

    def _array(self, pieces: list[Piece[Any]]) -> Any:
        """The sessions as JavaScript's array, made once for as long as they do not change."""
        where = pieces[0].first, pieces[-1].last
        known, array = self._arrays.get(where, (None, None))
        if known is not pieces:
            array = to_js([piece.session for piece in pieces])
            self._arrays[where] = pieces, array
        return array
