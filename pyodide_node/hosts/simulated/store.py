"""A store in memory that can be made to fail as storage and the web do."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field

from pyodide_node.errors import IntegrityError, StoreError, Unreachable

from .network import SimulatedNetwork

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
    """Held blobs, by hash, that have rotted on the disk."""
    unreachable: set[str] = field(default_factory=set)
    """URLs that do not answer; so does the whole web while the host's link to it is cut."""


class SimulatedStore:
    """See `base.Store`. Downloads come from `SimulatedNetwork.web` and take virtual time.

    `requests` lists the URLs asked for, in order.
    """

    def __init__(self, network: SimulatedNetwork, here: str) -> None:
        self.faults = StoreFaults()
        self.requests: list[str] = []
        self._network = network
        self._here = here
        self._blobs: dict[str, bytes] = {}  # least recently used first
        self._values: dict[str, bytes] = {}

    @property
    def persistent(self) -> bool:
        return not self.faults.denied

    async def fetch(self, url: str, limit: int) -> bytes:
        content = await self._get(url)
        if len(content) > limit:
            raise StoreError(f"{url} is larger than {limit} bytes", url=url, limit=limit)
        return content

    async def has(self, sha256: str) -> bool:
        return sha256 in self._blobs

    async def load(self, sha256: str, size: int) -> bytes | None:
        if sha256 not in self._blobs:
            return None
        blob = self._blobs.pop(sha256)
        if len(blob) != size or sha256 in self.faults.damaged:
            self.faults.damaged.discard(sha256)
            return None
        self._blobs[sha256] = blob
        return blob

    async def download(self, url: str, sha256: str, size: int, *, keep: bool) -> bytes:
        content = await self._get(url)
        if len(content) != size or hashlib.sha256(content).hexdigest() != sha256:
            raise IntegrityError(f"{url} is not what its hash says", url=url, sha256=sha256)
        if keep and not self.faults.full and not self.faults.denied:
            self._blobs.pop(sha256, None)
            self._blobs[sha256] = content
        return content

    async def drop(self, sha256: str) -> None:
        self._blobs.pop(sha256, None)

    async def held(self) -> dict[str, int]:
        return {sha256: len(blob) for sha256, blob in self._blobs.items()}

    async def get(self, name: str) -> bytes | None:
        return self._values.get(name)

    async def put(self, name: str, value: bytes) -> None:
        self._values[name] = value

    async def _get(self, url: str) -> bytes:
        self.requests.append(url)
        link = self._network.link(self._here, WEB)
        content = self._network.web.get(url)
        await asyncio.sleep(2 * link.delay)
        if content is None or url in self.faults.unreachable or not link.up:
            raise Unreachable(f"{url} does not answer", url=url)
        await asyncio.sleep(len(content) / link.bandwidth)
        if not self._network.alive(self._here):
            raise Unreachable("this host is dead", url=url)
        return content
