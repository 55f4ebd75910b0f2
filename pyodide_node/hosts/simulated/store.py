"""A store in memory that can be made to fail as storage and the web do."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field

from pyodide_node.errors import IntegrityError, StoreError, Unreachable
from pyodide_node.hosts.base import Buffer, Got, Pieces

from .network import Link, SimulatedNetwork

__all__ = ["SimulatedStore", "StoreFaults"]

WEB = "https:"
"""The place of every web server: `network.link(name, WEB)` is a host's way to the web."""


@dataclass(slots=True)
class StoreFaults:
    """May be changed at any time."""

    denied: bool = False
    """Storage is not to be had: everything is in memory and not persistent."""
    full: bool = False
    """Nothing more fits."""
    damaged: set[str] = field(default_factory=set)
    """Held pieces, by hash, that have rotted on the disk."""
    unreachable: set[str] = field(default_factory=set)
    """URLs that do not answer; so does the whole web while the host's link to it is cut."""
    stalled: set[str] = field(default_factory=set)
    """URLs that take a request and never say anything."""
    cut: dict[str, int] = field(default_factory=dict)
    """URLs whose answers break off at this byte of the file."""


class SimulatedStore:
    """See `base.Store`. Downloads come from `SimulatedNetwork.web` and take virtual time.

    `requests` lists the URLs asked for, in order.
    """

    def __init__(self, network: SimulatedNetwork, here: str) -> None:
        self.faults = StoreFaults()
        self.requests: list[str] = []
        self._network = network
        self._here = here
        self.served: dict[str, int] = {}
        """Bytes of pieces that each URL has sent, wanted or not."""
        self._loose: dict[str, bytes] = {}
        self._blobs: dict[str, bytes] = {}  # least recently used first
        self._values: dict[str, bytes] = {}

    @property
    def persistent(self) -> bool:
        return not self.faults.denied

    async def fetch(self, url: str, limit: int) -> bytes:
        content, link = await self._answer(url)
        await asyncio.sleep(len(content) / link.bandwidth)
        self._require_life(url)
        if len(content) > limit:
            raise StoreError(f"{url} is larger than {limit} bytes", url=url, limit=limit)
        return content

    async def has(self, sha256: str) -> bool:
        return sha256 in self._blobs or sha256 in self._loose

    async def pull(
        self, url: str, offset: int | None, pieces: Pieces, *, keep: bool, got: Got
    ) -> bool:
        content, link = await self._answer(url)
        exact = offset is None or url not in self._network.rangeless
        at = offset or 0
        if not exact:
            await asyncio.sleep(at / link.bandwidth)
            self.served[url] = self.served.get(url, 0) + at
        end = min(len(content), self.faults.cut.get(url, len(content)))
        for sha256, size in pieces:
            piece = content[at : min(at + size, end)]
            await asyncio.sleep(len(piece) / link.bandwidth)
            self._require_life(url)
            self.served[url] = self.served.get(url, 0) + len(piece)
            if len(piece) < size:
                raise Unreachable(f"{url} broke off", url=url, sha256=sha256)
            if hashlib.sha256(piece).hexdigest() != sha256:
                raise IntegrityError(f"{url} is not what its hash says", url=url, sha256=sha256)
            got(sha256, self._came(sha256, piece, keep))
            at += size
        return exact

    async def take(self, sha256: str, piece: Buffer, *, keep: bool) -> bool:
        if hashlib.sha256(piece).hexdigest() != sha256:
            raise IntegrityError("a peer's piece is not what its hash says", sha256=sha256)
        return self._came(sha256, bytes(piece), keep)

    async def read(self, sha256: str, size: int) -> bytes | None:
        if sha256 in self._loose:
            return self._loose[sha256]
        if sha256 not in self._blobs:
            return None
        piece = self._blobs.pop(sha256)
        if len(piece) != size or sha256 in self.faults.damaged:
            self.faults.damaged.discard(sha256)
            return None
        self._blobs[sha256] = piece
        return piece

    async def join(self, pieces: Pieces) -> bytes | None:
        parts = [await self.read(sha256, size) for sha256, size in pieces]
        if None in parts:
            return None
        for sha256, _ in pieces:
            self._loose.pop(sha256, None)
        return b"".join(part for part in parts if part is not None)

    async def drop(self, sha256: str) -> None:
        self._blobs.pop(sha256, None)
        self._loose.pop(sha256, None)

    async def held(self) -> dict[str, int]:
        return {sha256: len(blob) for sha256, blob in self._blobs.items()}

    async def get(self, name: str) -> bytes | None:
        return self._values.get(name)

    async def put(self, name: str, value: bytes) -> None:
        self._values[name] = value

    def _came(self, sha256: str, piece: bytes, keep: bool) -> bool:
        kept = keep and not self.faults.full and not self.faults.denied
        (self._blobs if kept else self._loose)[sha256] = piece
        return kept

    async def _answer(self, url: str) -> tuple[bytes, Link]:
        self.requests.append(url)
        link = self._network.link(self._here, WEB)
        content = self._network.web.get(url)
        await asyncio.sleep(2 * link.delay)
        if url in self.faults.stalled:
            await asyncio.Event().wait()
        if content is None or url in self.faults.unreachable or not link.up:
            raise Unreachable(f"{url} does not answer", url=url)
        return content, link

    def _require_life(self, url: str) -> None:
        if not self._network.alive(self._here):
            raise Unreachable("this host is dead", url=url)
