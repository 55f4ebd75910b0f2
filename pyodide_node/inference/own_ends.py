"""Embedding and head of this node, for its own answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pyodide_node.budget import MEGABYTE, Budget, Reservation
from pyodide_node.errors import BudgetExceeded
from pyodide_node.hosts.base import BlobReader, Ends, Host, PieceReader
from pyodide_node.model.ends import EndsFootprint, choose_ends, least_ends
from pyodide_node.model.manifest import Manifest

__all__ = ["OwnEnds", "StoredEmbedding"]


@dataclass(frozen=True, slots=True)
class StoredEmbedding:
    """The embedding's file, in this node's storage."""

    keep: Callable[[], Awaitable[None]]
    """Brings it there, as far as there is room."""
    piece: PieceReader


class OwnEnds:
    """Loaded when the first question comes; their memory is set aside from the start, so that
    blocks cannot take it. Their engine may be another than the blocks': a head of 128k tokens
    expanded to fp32 would take 2 GB. Without `stored` the embedding is held in memory."""

    def __init__(
        self,
        host: Host,
        budget: Budget,
        manifest: Manifest,
        read: BlobReader,
        stored: StoredEmbedding | None = None,
    ) -> None:
        self._host = host
        self._budget = budget
        self._manifest = manifest
        self._read = read
        self._stored = stored if host.store.persistent else None
        self._form: EndsFootprint | None = None
        self._memory: Reservation | None = None
        self._ends: Ends | None = None
        self._loading = asyncio.Lock()

    @property
    def spare(self) -> int:
        """Bytes that must stay free for their loading; none once they are loaded."""
        return self._form.spare if self._form is not None and self._ends is None else 0

    def reserve(self) -> bool:
        """Set their memory aside; False where they do not fit on any engine."""
        if self._memory is None:
            names = self._host.engine.names(self._manifest)
            free, storage = self._budget.memory_free, self._stored is not None
            self._form = choose_ends(self._manifest, names, free, storage=storage)
            if self._form is None:
                return False
            self._memory = self._budget.reserve(self._form.held, "embedding and head")
        return True

    async def get(self) -> Ends:
        """Raises BudgetExceeded, which says what to do, or as `Engine.load_ends`."""
        if not self.reserve():
            raise self._refusal()
        assert self._form is not None
        async with self._loading:
            if self._ends is None:
                with self._budget.reserved(self._form.spare, "loading embedding and head"):
                    self._ends = await self._load(self._form)
        return self._ends

    async def close(self) -> None:
        if self._ends is not None:
            await self._ends.close()
            self._ends = None
        if self._memory is not None:
            self._memory.release()
            self._memory = None

    async def _load(self, form: EndsFootprint) -> Ends:
        rows = None
        if form.stored and self._stored is not None:
            await self._stored.keep()
            rows = self._stored.piece
        load = self._host.engine.load_ends
        return await load(self._manifest, self._read, form.engine, rows)

    def _refusal(self) -> BudgetExceeded:
        names = self._host.engine.names(self._manifest)
        least = least_ends(self._manifest, names, storage=self._stored is not None)
        free = self._budget.memory_free
        return BudgetExceeded(
            f"asking {self._manifest.name} takes {least / MEGABYTE:.0f} MB for its embedding and"
            f" head, and {free / MEGABYTE:.0f} MB are free; raise memory in data-max-resources,"
            " ask on a native node near you (kwaainet generate), or choose a model with a smaller"
            " vocabulary",
            resource="memory",
            asked=least,
            free=free,
        )
