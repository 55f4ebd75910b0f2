"""Pieces in Cache Storage, values in IndexedDB; files stay in JavaScript."""

from __future__ import annotations

import itertools
import json
from typing import Any

from pyodide.ffi import create_proxy

from pyodide_node.errors import StoreError, Unreachable
from pyodide_node.hosts.base import Buffer, Got, Pieces

from .errors import awaited

__all__ = ["BrowserStore"]


class BrowserStore:
    """See `base.Store`. What `join` returns is a JavaScript PieceFile (loader/worker/file.ts)."""

    def __init__(self, js: Any) -> None:
        self._js = js
        self._numbers = itertools.count()

    @property
    def persistent(self) -> bool:
        return bool(self._js.persistent)

    async def fetch(self, url: str, limit: int) -> bytes:
        content: bytes = (
            await awaited(self._js.fetch(url, limit), Unreachable, url=url)
        ).to_bytes()
        return content

    async def has(self, sha256: str) -> bool:
        return bool(self._js.has(sha256))

    async def pull(
        self, url: str, offset: int | None, pieces: Pieces, *, keep: bool, got: Got
    ) -> bool:
        number = next(self._numbers)
        told = create_proxy(got)
        at = -1 if offset is None else offset
        try:
            pulling = self._js.pull(number, url, at, json.dumps(list(pieces)), keep, told)
            return bool(await awaited(pulling, Unreachable, url=url))
        finally:
            self._js.cancel(number)
            told.destroy()

    async def take(self, sha256: str, piece: Buffer, *, keep: bool) -> bool:
        taking = self._js.take(sha256, piece, keep)
        return bool(await awaited(taking, StoreError, sha256=sha256))

    async def read(self, sha256: str, size: int) -> bytes | None:
        piece = await awaited(self._js.read(sha256, size), StoreError, sha256=sha256)
        if piece is None:
            return None
        content: bytes = piece.to_bytes()
        self._js.giveBack(piece)
        return content

    async def join(self, pieces: Pieces) -> Any | None:
        return await awaited(self._js.join(json.dumps(list(pieces))), StoreError)

    async def drop(self, sha256: str) -> None:
        await awaited(self._js.drop(sha256), StoreError)

    async def held(self) -> dict[str, int]:
        return dict(json.loads(self._js.list()))

    async def get(self, name: str) -> bytes | None:
        value = await awaited(self._js.get(name), StoreError)
        return None if value is None else value.to_bytes()

    async def put(self, name: str, value: Buffer) -> None:
        await awaited(self._js.put(name, value), StoreError)
