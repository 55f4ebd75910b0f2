"""Brings the files of one model: from the store, else from peers, mirrors and IPFS, checked.

Files are fetched by the span only. What has been verified once is kept within the visitor's cap
and never fetched again, however a fetch ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pyodide_node.delivery.catalog import Model
from pyodide_node.delivery.haul import Haul
from pyodide_node.delivery.parts import Part, Parts
from pyodide_node.delivery.peers import Peers
from pyodide_node.delivery.seeding import Seeding
from pyodide_node.delivery.sources import SourceKind, gateway, mirror
from pyodide_node.delivery.storage import Storage
from pyodide_node.errors import StoreError
from pyodide_node.hosts.base import Buffer, Host
from pyodide_node.mesh.mesh import Mesh
from pyodide_node.mesh.paths import Path
from pyodide_node.model.footprint import Footprint
from pyodide_node.model.manifest import Blob
from pyodide_node.wire.messages import (
    Message,
    PartRefused,
    PartRequest,
    PartsHeld,
    PartSlice,
    PartsQuery,
)

__all__ = ["Delivery"]

_JOINS = 3
"""How often a file is made whole again after some of its pieces turned out to have rotted."""

Progress = Callable[[int, int, dict[SourceKind, int]], None]
"""(bytes here, of so many, by which kind of source they came)."""


class Delivery:
    """See `base.BlobReader`. With a mesh, other nodes are asked first, and given what is here at
    `rate` bytes a second."""

    def __init__(
        self,
        host: Host,
        model: Model,
        storage: Storage,
        *,
        mesh: Mesh | None = None,
        gateways: Sequence[str] = (),
        rate: float = 0.0,
        busy: Callable[[], bool] = lambda: False,
        progress: Progress = lambda done, total, kinds: None,
    ) -> None:
        self._host = host
        self._model = model
        self._storage = storage
        self._parts = Parts(model.manifest)
        self._sources = [mirror(folder) for folder in model.folders]
        self._sources += [gateway(base) for base in gateways]
        self._hauls: set[Haul] = set()
        self._progress = progress
        self._plan = self._done = 0
        self._peers: Peers | None = None
        self._seeding: Seeding | None = None
        if mesh is not None:
            key = bytes.fromhex(model.id)
            self._peers = Peers(host, mesh, key, self._parts.count, self._wake)
            self._seeding = Seeding(
                host, mesh, key, self._parts, storage, rate, soon=self._from_elsewhere, busy=busy
            )
        self.downloaded: dict[SourceKind, int] = {"peers": 0, "mirrors": 0, "ipfs": 0}
        """Bytes that came over the network, by where from."""

    @property
    def seeded(self) -> int:
        """Bytes given to other nodes."""
        return self._seeding.sent if self._seeding else 0

    async def start(self) -> None:
        """Know what an earlier run kept of this model, and give it to others."""
        for blob in self._parts.blobs():
            root = self._parts.root(blob)
            if root is not None and self._storage.has(root.sha256):
                await self._learn(root)
        if self._seeding is not None:
            self._seeding.start()

    async def close(self) -> None:
        if self._seeding is not None:
            await self._seeding.close()

    def seeds(self) -> list[tuple[int, int]]:
        """Runs [first, last) of layers whose files are here whole; at most eight."""
        runs: list[tuple[int, int]] = []
        for index, blob in enumerate(self._model.manifest.layers):
            pieces = self._parts.pieces(blob)
            if pieces is None or not all(self._storage.has(piece.sha256) for piece in pieces):
                continue
            if runs and runs[-1][1] == index:
                runs[-1] = runs[-1][0], index + 1
            else:
                runs.append((index, index + 1))
        return sorted(sorted(runs, key=lambda run: run[0] - run[1])[:8])

    async def bring_span(self, footprint: Footprint, first: int, last: int) -> None:
        """Fetch the files of a span in any order and at once, as far as the storage cap has room.

        Raises IntegrityError, Unreachable.
        """
        manifest = self._model.manifest
        sizes = {end - begin for begin, end in footprint.pieces(first, last)}
        graphs = [manifest.graph(footprint.variant, size) for size in sorted(sizes)]
        files = [*graphs, *manifest.span_blobs(first, last).values()]
        self._plan, self._done = sum(blob.bytes for blob in files), 0
        roots = [part for part in map(self._parts.root, files) if part is not None]
        fits = self._storage.available >= self._plan + sum(root.size for root in roots)
        if fits:
            pieces = await self._bring(files, loose=False)
            self._storage.pin(part.sha256 for part in (*roots, *pieces))

    async def __call__(self, sha256: str, size: int) -> Any:
        """Raises IntegrityError or Unreachable when no source has it whole."""
        blob = self._parts.blob(sha256)
        for _ in range(_JOINS):
            pieces = await self._bring([blob], loose=True)
            named = [(part.sha256, part.size) for part in pieces]
            file = await self._host.store.join(named) if named else None
            if file is not None:
                for part in pieces:
                    self._storage.touch(part.sha256)
                return file
            for part in pieces:
                if not await self._host.store.has(part.sha256):
                    self._storage.forget(part.sha256)
        raise StoreError("this machine's storage loses what was just written", sha256=sha256)

    async def keep(self, sha256: str) -> None:
        """Have a file's pieces in storage, as far as the cap has room. Raises as a call does."""
        blob = self._parts.blob(sha256)
        if self._storage.available >= blob.bytes:
            await self._bring([blob], loose=False)

    async def piece(self, sha256: str, number: int) -> bytes:
        """One piece of a file, from the store or any source. Raises as a call does."""
        blob = self._parts.blob(sha256)
        root = self._parts.root(blob)
        if root is not None and self._parts.pieces(blob) is None:
            await self._fetch([root], loose=True)
            await self._learn(root)
        part = (self._parts.pieces(blob) or ())[number]
        for _ in range(_JOINS):
            await self._fetch([part], loose=True)
            content = await self._host.store.read(part.sha256, part.size)
            if self._storage.has(part.sha256):
                self._storage.touch(part.sha256)
            else:
                await self._host.store.drop(part.sha256)  # not kept, so not left in memory either
            if content is not None:
                return content
            if not await self._host.store.has(part.sha256):
                self._storage.forget(part.sha256)
        raise StoreError("this machine's storage loses what was just written", sha256=sha256)

    def take(self, peer: bytes, message: Message, payload: Buffer, path: Path) -> None:
        """A message of another node about parts."""
        if isinstance(message, PartsHeld | PartSlice | PartRefused):
            if self._peers is not None:
                self._peers.take(peer, message, payload)
        elif isinstance(message, PartsQuery | PartRequest) and self._seeding is not None:
            self._seeding.take(peer, message, path)

    def peer_left(self, peer: bytes) -> None:
        if self._peers is not None and self._seeding is not None:
            self._peers.left(peer)
            self._seeding.left(peer)

    # --- inside ---------------------------------------------------------------------------

    async def _bring(self, files: Iterable[Blob], *, loose: bool) -> list[Part]:
        """All pieces of these files into the store; without `loose`, as many as may be kept."""
        blobs = list({blob.sha256: blob for blob in files}.values())
        roots = [self._parts.root(blob) for blob in blobs if self._parts.pieces(blob) is None]
        unknown = [root for root in roots if root is not None]
        await self._fetch(unknown, loose=loose)
        for root in unknown:
            await self._learn(root)
        found = [part for blob in blobs for part in self._parts.pieces(blob) or ()]
        await self._fetch(found, loose=loose)
        return found

    async def _fetch(self, parts: Sequence[Part], *, loose: bool) -> None:
        store = self._host.store
        missing = [part for part in parts if not await store.has(part.sha256)]
        absent = {part.sha256 for part in missing}
        self._count(sum(p.size for p in parts if not p.root and p.sha256 not in absent))
        if not missing:
            return
        unkept: set[str] = set()

        def came(part: Part, kind: SourceKind, kept: bool) -> None:
            self.downloaded[kind] += part.size
            if not kept:
                unkept.add(part.sha256)
            if not part.root:
                self._count(part.size)
            if self._seeding is not None:
                self._seeding.changed()

        for source in self._sources:
            source.rested()
        self._storage.rested()
        haul = Haul(self._host, self._storage, self._sources, self._peers, came, loose=loose)
        self._hauls.add(haul)
        if self._peers is not None:
            self._peers.begin()
        whole = False
        try:
            await haul.run(missing)
            whole = loose
        finally:
            self._hauls.discard(haul)
            if self._peers is not None:
                self._peers.end()
            if not whole:
                for sha256 in unkept:
                    await store.drop(sha256)

    async def _learn(self, root: Part) -> None:
        content = await self._host.store.read(root.sha256, root.size)
        if content is not None:
            self._parts.learn(root.blob, content)
        if not self._storage.has(root.sha256):
            await self._host.store.drop(root.sha256)

    def _count(self, size: int) -> None:
        if self._done < self._plan:
            self._done = min(self._done + size, self._plan)
            self._progress(self._done, self._plan, self.downloaded)

    def _wake(self) -> None:
        for haul in self._hauls:
            haul.wake()

    def _from_elsewhere(self) -> list[int]:
        return [number for haul in self._hauls for number in haul.from_elsewhere()]
