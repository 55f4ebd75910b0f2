"""Blobs as files named by their hash, small values as files named by their name.

Files appear whole, by rename, so that a crash leaves nothing half-written under a true name. A
blob's modification time is set at each use: access times are off on most mounts.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import secrets
import threading
import time
import urllib.parse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from os import utime
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from pyodide_node.errors import IntegrityError, StoreError

from . import web

__all__ = ["NativeStore"]

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 4
"""Downloads at once; the event loop's own pool stays free for what must not wait for them."""

SHA256 = re.compile(r"[0-9a-f]{64}")


class NativeStore:
    """See `base.Store`. Blobs live in `blobs` and may be deleted at any time; values in `values`.

    A folder that cannot be written is no error: values are then kept in memory, blobs not at all.
    """

    def __init__(self, blobs: Path, values: Path) -> None:
        self._blobs = blobs
        self._values = values
        self._memory: dict[str, bytes] = {}
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="kwaainet-store")
        self._persistent = _writable(blobs) and _writable(values)

    @property
    def persistent(self) -> bool:
        return self._persistent

    async def fetch(self, url: str, limit: int) -> bytes:
        content, _ = await self._run(_fetch, url, limit + 1)
        if len(content) > limit:
            raise StoreError(f"{url} is larger than {limit} bytes", url=url, limit=limit)
        return content

    async def has(self, sha256: str) -> bool:
        return self._path(sha256).is_file()

    async def load(self, sha256: str, size: int) -> bytes | None:
        return await self._run(_load, self._path(sha256), sha256, size)

    async def download(self, url: str, sha256: str, size: int, *, keep: bool) -> bytes:
        # One byte more than promised shows a file that is too long without reading all of it.
        content, digest = await self._run(_fetch, url, size + 1)
        if len(content) != size or digest != sha256:
            raise IntegrityError(f"{url} is not what its hash says", url=url, sha256=sha256)
        if keep:
            await self._run(_write, self._path(sha256), content)
        return content

    async def drop(self, sha256: str) -> None:
        with contextlib.suppress(OSError):
            self._path(sha256).unlink()

    async def held(self) -> dict[str, int]:
        return await self._run(_list, self._blobs)

    async def get(self, name: str) -> bytes | None:
        if name in self._memory:
            return self._memory[name]
        return await self._run(_read, self._named(name))

    async def put(self, name: str, value: bytes) -> None:
        if await self._run(_write, self._named(name), value):
            self._memory.pop(name, None)
        else:
            self._memory[name] = value

    def close(self) -> None:
        """Let the threads end; what they are reading is stopped at its next chunk."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _path(self, sha256: str) -> Path:
        # The hash may come from a stranger: nothing else may become part of a path.
        if not SHA256.fullmatch(sha256):
            raise StoreError("not a sha256 in lower-case hex", sha256=sha256)
        return self._blobs / sha256[:2] / sha256

    def _named(self, name: str) -> Path:
        return self._values / f"{urllib.parse.quote(name, safe='')}.value"

    async def _run(
        self,
        work: Callable[Concatenate[threading.Event, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """`work` in a thread; its first argument is set when the caller is cancelled."""
        stop = threading.Event()
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, lambda: work(stop, *args, **kwargs))
        finally:
            stop.set()


def _fetch(stop: threading.Event, url: str, most: int) -> tuple[bytes, str]:
    """The content and its hash, taken as it comes."""
    digest = hashlib.sha256()
    chunks = []
    for chunk in web.get(url, most, stop):
        digest.update(chunk)
        chunks.append(chunk)
    return b"".join(chunks), digest.hexdigest()


def _load(_: threading.Event, path: Path, sha256: str, size: int) -> bytes | None:
    try:
        blob = path.read_bytes() if path.stat().st_size == size else b""
        if len(blob) == size and hashlib.sha256(blob).hexdigest() == sha256:
            _touch(path)
            return blob
        path.unlink()
    except OSError:
        pass  # absent, or a disk that cannot read it: either way it must be fetched again
    return None


def _read(_: threading.Event, path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _write(_: threading.Event, path: Path, content: bytes) -> bool:
    """Whether it worked; a full or read-only disk is an answer, not an error."""
    draft = path.with_name(f"{secrets.token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.touch(mode=0o600)  # a value may be a key
        draft.write_bytes(content)
        _touch(draft)
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        return False
    return True


def _touch(path: Path) -> None:
    now = time.time_ns()
    utime(path, ns=(now, now))


def _list(_: threading.Event, blobs: Path) -> dict[str, int]:
    found = []
    for path in blobs.glob("??/*"):
        try:
            facts = path.stat()
        except OSError:
            continue
        if SHA256.fullmatch(path.name):
            found.append((facts.st_mtime_ns, path.name, facts.st_size))
    return {name: size for _, name, size in sorted(found)}


def _writable(folder: Path) -> bool:
    probe = folder / f"{secrets.token_hex(8)}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError:
        return False
    return True
