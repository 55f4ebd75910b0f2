"""KwaaiNetCore: the node, whatever it runs on."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

from pyodide_node.budget import MEGABYTE, Budget
from pyodide_node.config import NodeConfig, ResourceLimits
from pyodide_node.delivery.catalog import Catalog, Model
from pyodide_node.delivery.delivery import Delivery
from pyodide_node.delivery.private import KeyKeeper, unlocking, unlocking_piece
from pyodide_node.delivery.sources import SourceKind
from pyodide_node.delivery.storage import Storage
from pyodide_node.errors import KwaaiNetError, LocalError
from pyodide_node.hosts.base import BlobReader, Buffer, Ends, Host, PieceReader
from pyodide_node.inference.asker import Answer, Asker
from pyodide_node.inference.generation import Chunk, InferenceRequest
from pyodide_node.inference.holding import Holding
from pyodide_node.inference.own_ends import OwnEnds, StoredEmbedding
from pyodide_node.inference.presence import Presence
from pyodide_node.inference.serving import Serving
from pyodide_node.inference.work import Work
from pyodide_node.mesh.mesh import Mesh
from pyodide_node.mesh.paths import Path
from pyodide_node.mesh.peer import peer_id
from pyodide_node.status import Facts, describe
from pyodide_node.wire.messages import (
    CloseSession,
    KeyReply,
    KeyRequest,
    Message,
    OpenSession,
    Result,
    SessionOpened,
    StageError,
    StageReport,
    Step,
)

__all__ = ["KwaaiNetCore", "Progress"]

Progress = Callable[[str, str, float | None], None]
"""(stage, text for people, share done in 0…1 or None)."""

_DRAIN_LOOK = 0.05
"""Seconds between looks at whether the last session has ended."""
_WARM_PEERS = 8
"""Links opened before they are needed; more would burden everybody in a large swarm."""


class KwaaiNetCore:
    """One node: `initialize`, `join_network`, `load_model`, `run_inference`, `close`."""

    def __init__(
        self,
        host: Host,
        config: NodeConfig,
        *,
        progress: Progress = lambda stage, text, share: None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._host = host
        self._config = config
        self._progress = progress
        self._changed = changed
        self.budget = Budget(host.clock, host.kind, config.limits)
        self._catalog = Catalog(host.store, config.sources, host.keys, config.publisher)
        self._mesh = Mesh(
            host,
            policy=config.path,
            received=self._received,
            changed=self._directory_changed,
            gone=self._peer_left,
        )
        self._mesh.cut = self._peer_cut
        self._keeper = KeyKeeper(host, self._mesh.send)
        self._model: Model | None = None
        self._work: Work | None = None
        self._fetch: Delivery | None = None
        self._read: BlobReader | None = None
        self._ends: OwnEnds | None = None
        self._storage = Storage(host, self.budget, self._evicted)
        self._enforcing: asyncio.Future[None] | None = None
        self.state = "starting"

    @property
    def peer(self) -> str:
        return peer_id(self._host.keys.public_key)

    @property
    def model(self) -> Model | None:
        return self._model

    async def initialize(self) -> None:
        """Join, load and serve as the config says. Raises KwaaiNetError with what to do.

        A relay that does not answer is no failure: the node works alone and keeps trying.
        """
        await self.join_network(self._config.relays)
        await self.load_model(self._config.model)
        self.state = "ready"
        self._changed()

    async def join_network(self, relays: Sequence[str]) -> None:
        """Begin to keep a connection to the first relay that answers; returns at once."""
        if relays:
            self._progress("network", "Looking for a relay", None)
            self._mesh.join(relays)

    async def find(self, name: str = "") -> Model:
        """The manifest of a model, as `load_model` would take it. Raises UnknownModel, …"""
        return await self._catalog.find(name)

    async def load_model(self, name: str = "") -> Model:
        """Fetch the manifest, choose a span that fits the caps, load and announce it."""
        self.state = "loading"
        self._progress("model", "Looking for the model", None)
        model = await self.find(name)
        await self._drop_model()
        await self._storage.open()
        self._model = model
        self._mesh.subscribe(bytes.fromhex(model.id))
        if self._config.relays:
            await self._hear_of_others()
        self._fetch = Delivery(
            self._host,
            model,
            self._storage,
            mesh=self._mesh if self._config.path != "relay" else None,
            gateways=self._config.gateways,
            rate=self._config.upload * MEGABYTE,
            busy=lambda: self._work is not None and self._work.serving.busy,
            progress=self._fetching,
        )
        await self._fetch.start()
        self._read = self._fetch
        embedding = model.manifest.embed.sha256
        piece: PieceReader = partial(self._fetch.piece, embedding)
        if model.manifest.private:
            self._progress("model", "Asking the model's keeper for its key", None)
            key = await self._keeper.key(model)
            self._read = unlocking(self._host, model.manifest, key, self._fetch)
            piece = unlocking_piece(self._host, model.manifest, key, embedding, piece)
        # A node can always ask: the ends' memory is set aside before blocks take the rest.
        stored = StoredEmbedding(partial(self._fetch.keep, embedding), piece)
        self._ends = OwnEnds(self._host, self.budget, model.manifest, self._read, stored)
        can_ask = self._ends.reserve()
        self._work = work = self._make_work(model, self._fetch, self._read)
        work.holding.spare = self._ends.spare
        serves = "compute" in self._config.services
        if serves:
            work.holding.choose_engine()
        if not (serves and work.holding.room()) and (not can_ask or serves):
            # Loaded now, they need no room for that later, and there may be some for blocks.
            await self._ends.get()  # raises where they do not fit: the node would be of no use
            work.holding.spare = 0
        work.serving.start()  # for this node's own answers too
        if serves:
            await work.presence.start(may_be_empty=can_ask)
        return model

    async def run_inference(
        self, request: InferenceRequest, told: Callable[[Answer], None] = lambda answer: None
    ) -> AsyncIterator[Chunk]:
        """Chunks of the answer as they come; `told` gets the `Answer` itself, also at the end."""
        model, ends = await self._ready_to_ask(request.model)
        assert self._work is not None
        async for chunk in self._work.asker.generate(model, ends, request, told):
            yield chunk

    async def status(self) -> dict[str, Any]:
        """The node's state as JSON for pages and command lines."""
        facts = Facts(
            state=self.state,
            host=self._host,
            budget=self.budget,
            storage=self._storage,
            mesh=self._mesh,
            model=self._model,
            work=self._work,
            delivery=self._fetch,
        )
        return describe(facts)

    def set_limits(self, limits: ResourceLimits) -> None:
        """New caps, from the visitor's hand; they hold from the next step on."""
        self.budget.set_limits(limits)
        if self._work is not None:
            self._work.presence.limits_changed()
        self._enforcing = asyncio.ensure_future(self._lower_storage())
        self._changed()

    async def measure(self, steps: int) -> float:
        """Time `steps` single positions through the blocks held here; positions·blocks a second,
        whatever the caps. Raises LocalError when no blocks are held."""
        if self._work is None or self._work.holding.span is None:
            raise LocalError("no blocks are held here, so there is nothing to measure")
        async with self._work.holding.lock:
            return await self._work.holding.measure(steps, math.inf)

    async def drain(self) -> None:
        """Take back the announcement, then wait until nobody's session is open here."""
        if self._work is not None:
            await self._work.presence.withdraw()
            # Sessions end by what others send; nothing here needs to know it at once.
            while self._work.serving.busy:  # noqa: ASYNC110
                await asyncio.sleep(_DRAIN_LOOK)

    async def close(self) -> None:
        self.state = "stopped"
        if self._enforcing is not None:
            await self._enforcing
        await self._drop_model()
        await self._keeper.close()
        await self._mesh.close()
        self._changed()

    # --- inside ---------------------------------------------------------------------------

    async def _ready_to_ask(self, name: str) -> tuple[Model, Ends]:
        model, ends = self._model, self._ends
        if model is None or ends is None:
            raise LocalError("the node has not loaded a model yet; wait until it is ready")
        if name not in ("", model.manifest.name, model.id):
            await self._catalog.find(name)  # raises UnknownModel, naming those there are
            raise LocalError(
                f"this node works on {model.manifest.name}; start it with the model {name}",
                model=name,
            )
        return model, await ends.get()

    async def _drop_model(self) -> None:
        """Give back all that was loaded, and every byte of its memory."""
        work, self._work = self._work, None
        ends, self._ends = self._ends, None
        if work is not None:
            await work.presence.close()
            await work.serving.close()
            await work.holding.unload()
        if ends is not None:
            await ends.close()
        fetch, self._fetch = self._fetch, None
        if fetch is not None:
            await fetch.close()

    def _make_work(self, model: Model, fetch: Delivery, read: BlobReader) -> Work:
        host, mesh, config = self._host, self._mesh, self._config
        holding = Holding(
            host,
            self.budget,
            model,
            read,
            config.max_blocks,
            prepare=fetch.bring_span,
            rates=config.rates,
            network=config.network,
        )
        serving = Serving(host, mesh, self.budget, model, holding)
        presence = Presence(host, mesh, config, model, holding, serving, fetch, self._changed)
        return Work(holding, serving, presence, Asker(host, mesh, self.budget, holding))

    def _fetching(self, done: int, total: int, kinds: dict[SourceKind, int]) -> None:
        assert self._model is not None
        whence = ", ".join(name for name, size in kinds.items() if size)
        text = f"Loading {self._model.manifest.name}: {done / 1e6:.1f} of {total / 1e6:.1f} MB"
        self._progress("model", f"{text} ({whence})" if whence else text, done / total)

    def _evicted(self) -> None:
        if self._work is not None:
            self._work.presence.storage_changed()

    async def _lower_storage(self) -> None:
        await self._storage.enforce()
        self._changed()

    async def _hear_of_others(self) -> None:
        """Give the relay a moment, so that the first span chosen is one that is needed."""
        try:
            await self._mesh.joined(3.0)
        except KwaaiNetError:
            return
        await self._mesh.heard(1.0)

    def _received(self, peer: bytes, message: Message, payload: Buffer, path: Path) -> None:
        if isinstance(message, KeyRequest | KeyReply):
            self._keeper.take(peer, message)
        if self._fetch is not None:
            self._fetch.take(peer, message, payload, path)
        if self._work is None:
            return
        match message:
            case Step() | OpenSession() | CloseSession():
                self._work.serving.take(peer, message, payload, path)
            case Result() | SessionOpened() | StageError() | StageReport():
                self._work.asker.take(peer, message, payload)
            case _:
                pass  # a newer node may say more

    def _directory_changed(self) -> None:
        if self._work is not None:
            self._work.presence.directory_changed()
            self._work.asker.directory_changed()
        if self._model is not None:
            entries = self._mesh.entries(bytes.fromhex(self._model.id))
            self._mesh.warm([entry.public_key for entry in entries[:_WARM_PEERS]])
        self._changed()

    def _peer_cut(self, peer: bytes) -> None:
        if self._work is not None:
            self._work.asker.peer_left(peer)

    def _peer_left(self, peer: bytes) -> None:
        if self._fetch is not None:
            self._fetch.peer_left(peer)
        if self._work is not None:
            self._work.serving.peer_left(peer)
            self._work.asker.peer_left(peer)
