"""Pieces as files named by their hash, small values as files named by their name.

Files appear whole, by rename, so that a crash leaves nothing half-written under a true name. A
piece's modification time is set at each use: access times are off on most mounts.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import re
import secrets
import threading
import time
import urllib.parse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from os import utime
from pathlib import Path
from typing import TypeVar, TypeVarTuple, Unpack

from pyodide_node.errors import IntegrityError, StoreError, Unreachable
from pyodide_node.hosts.base import Buffer, Got, Pieces

from . import web

__all__ = ["NativeStore"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

DOWNLOADS = 4
"""At once; the disk has threads of its own, since what is read must not wait for them."""

_OWNER, _ALL = 0o600, 0o666
"""Who may read: values may be keys, pieces may be shared. The umask takes from both."""

SHA256 = re.compile(r"[0-9a-f]{64}")


class NativeStore:
    """See `base.Store`. Blobs live in `blobs` and may be deleted at any time; values in `values`.

    A folder that cannot be written is no error: values are then kept in memory, blobs not at all.
    """

    def __init__(self, blobs: Path, values: Path) -> None:
        self._blobs = blobs
        self._values = values
        self._memory: dict[str, bytes] = {}
        self._loose: dict[str, Buffer] = {}
        self._downloads = ThreadPoolExecutor(DOWNLOADS, thread_name_prefix="kwaainet-download")
        self._disk = ThreadPoolExecutor(2, thread_name_prefix="kwaainet-disk")
        self._persistent = _writable(blobs) and _writable(values)

    @property
    def persistent(self) -> bool:
        return self._persistent

    async def fetch(self, url: str, limit: int) -> bytes:
        content = await self._run(_fetch, url, limit + 1, pool=self._downloads)
        if len(content) > limit:
            raise StoreError(f"{url} is larger than {limit} bytes", url=url, limit=limit)
        return content

    async def has(self, sha256: str) -> bool:
        return sha256 in self._loose or self._path(sha256).is_file()

    async def pull(
        self, url: str, offset: int | None, pieces: Pieces, *, keep: bool, got: Got
    ) -> bool:
        loop = asyncio.get_running_loop()

        def came(sha256: str, piece: Buffer) -> None:
            # On the loop's thread, in order: `got` and the loose pieces are its own.
            kept = keep and _written(self._path(sha256), piece, _ALL)
            loop.call_soon_threadsafe(self._came, sha256, piece, kept, got)

        return await self._run(_pull, url, offset, pieces, came, pool=self._downloads)

    async def take(self, sha256: str, piece: Buffer, *, keep: bool) -> bool:
        content = bytes(piece)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise IntegrityError("a peer's piece is not what its hash says", sha256=sha256)
        kept = keep and await self._run(_write, self._path(sha256), content, _ALL)
        self._came(sha256, content, kept, lambda sha256, kept: None)
        return kept

    async def read(self, sha256: str, size: int) -> bytes | None:
        loose = self._loose.get(sha256)
        if loose is not None:
            return bytes(loose)
        return await self._run(_load, self._path(sha256), sha256, size)

    async def join(self, pieces: Pieces) -> bytes | None:
        loose = {sha256: self._loose[sha256] for sha256, _ in pieces if sha256 in self._loose}
        paths = [(loose.get(sha256) or self._path(sha256), sha256, size) for sha256, size in pieces]
        file = await self._run(_join, paths)
        if file is not None:
            for sha256, _ in pieces:
                self._loose.pop(sha256, None)
        return file

    async def drop(self, sha256: str) -> None:
        self._loose.pop(sha256, None)
        with contextlib.suppress(OSError):
            self._path(sha256).unlink()

    async def held(self) -> dict[str, int]:
        return await self._run(_list, self._blobs)

    async def get(self, name: str) -> bytes | None:
        if name in self._memory:
            return self._memory[name]
        return await self._run(_read, self._named(name))

    async def put(self, name: str, value: bytes) -> None:
        if await self._run(_write, self._named(name), value, _OWNER):
            self._memory.pop(name, None)
        else:
            self._memory[name] = value

    def close(self) -> None:
        """Let the threads end; what they are reading is stopped at its next chunk."""
        for pool in (self._downloads, self._disk):
            pool.shutdown(wait=False, cancel_futures=True)

    def _came(self, sha256: str, piece: Buffer, kept: bool, got: Got) -> None:
        if not kept:
            self._loose[sha256] = piece
        got(sha256, kept)

    def _path(self, sha256: str) -> Path:
        # The hash may come from a stranger: nothing else may become part of a path.
        if not SHA256.fullmatch(sha256):
            raise StoreError("not a sha256 in lower-case hex", sha256=sha256)
        return self._blobs / sha256[:2] / sha256

    def _named(self, name: str) -> Path:
        return self._values / f"{urllib.parse.quote(name, safe='')}.value"

    async def _run(
        self,
        work: Callable[[threading.Event, Unpack[Ts]], T],
        *args: *Ts,
        pool: ThreadPoolExecutor | None = None,
    ) -> T:
        """`work` in a thread; its first argument is set when the caller is cancelled."""
        stop = threading.Event()
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(pool or self._disk, lambda: work(stop, *args))
        finally:
            stop.set()


def _fetch(stop: threading.Event, url: str, most: int) -> bytes:
    return b"".join(web.get(url, most, stop))


def _pull(
    stop: threading.Event,
    url: str,
    offset: int | None,
    pieces: Pieces,
    came: Callable[[str, Buffer], None],
) -> bool:
    """Reads piece by piece; what comes behind the last is not read."""
    part = None if offset is None else (offset, sum(size for _, size in pieces))
    with web.opened(url, part) as (read, exact):
        for sha256, size in pieces:
            piece = bytearray(size)
            if read(memoryview(piece), stop) < size:
                raise Unreachable(f"{url} broke off", url=url, sha256=sha256)
            if hashlib.sha256(piece).hexdigest() != sha256:
                raise IntegrityError(f"{url} is not what its hash says", url=url, sha256=sha256)
            came(sha256, piece)
    return exact


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


def _join(stop: threading.Event, pieces: list[tuple[Buffer | Path, str, int]]) -> bytes | None:
    file = io.BytesIO()  # gives its buffer away: joining a list would need twice the memory
    for place, sha256, size in pieces:
        part = _load(stop, place, sha256, size) if isinstance(place, Path) else place
        if part is None or stop.is_set():
            return None
        file.write(part)
    return file.getvalue()


def _read(_: threading.Event, path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _write(_: threading.Event, path: Path, content: bytes, mode: int) -> bool:
    return _written(path, content, mode)


def _written(path: Path, content: Buffer, mode: int) -> bool:
    """Whether it worked; a full or read-only disk is an answer, not an error."""
    draft = path.with_name(f"{secrets.token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.touch(mode)
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
