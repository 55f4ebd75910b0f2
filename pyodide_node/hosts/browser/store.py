"""Blobs in Cache Storage, values in IndexedDB; blobs stay in JavaScript."""

from __future__ import annotations

import json
from typing import Any

from pyodide_node.errors import StoreError, Unreachable
from pyodide_node.hosts.base import Buffer

from .errors import awaited

__all__ = ["BrowserStore"]


class BrowserStore:
    """See `base.Store`. What `load` and `download` return is a JavaScript ArrayBuffer."""

    def __init__(self, js: Any) -> None:
        self._js = js

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

    async def load(self, sha256: str, size: int) -> Any | None:
        return await awaited(self._js.load(sha256, size), StoreError, sha256=sha256)

    async def download(self, url: str, sha256: str, size: int, *, keep: bool) -> Any:
        promise = self._js.download(url, sha256, size, keep)
        return await awaited(promise, Unreachable, url=url, sha256=sha256)

    async def drop(self, sha256: str) -> None:
        await awaited(self._js.drop(sha256), StoreError)

    async def held(self) -> dict[str, int]:
        return dict(json.loads(self._js.list()))

    async def get(self, name: str) -> bytes | None:
        value = await awaited(self._js.get(name), StoreError)
        return None if value is None else value.to_bytes()

    async def put(self, name: str, value: Buffer) -> None:
        await awaited(self._js.put(name, value), StoreError)
