"""Embedding and head of this node, for its own answers."""

from __future__ import annotations

import asyncio

from pyodide_node.budget import MEGABYTE, Budget, Reservation
from pyodide_node.errors import BudgetExceeded
from pyodide_node.hosts.base import BlobReader, Ends, EngineName, Host
from pyodide_node.model.footprint import Footprint, ends_engine
from pyodide_node.model.manifest import Manifest

__all__ = ["OwnEnds"]


class OwnEnds:
    """Loaded when the first question comes; their memory is set aside from the start, so that
    blocks cannot take it. Their engine may be another than the blocks': a head of 128k tokens
    expanded to fp32 would take 2 GB."""

    def __init__(self, host: Host, budget: Budget, manifest: Manifest, read: BlobReader) -> None:
        self._host = host
        self._budget = budget
        self._manifest = manifest
        self._read = read
        self._engine: EngineName | None = None
        self._memory: Reservation | None = None
        self._ends: Ends | None = None
        self._loading = asyncio.Lock()
        self.spare = 0
        """Bytes that must stay free for their loading; none once they are loaded."""

    def reserve(self) -> bool:
        """Set their memory aside; False where they do not fit on any engine."""
        if self._memory is None:
            names = self._host.engine.names(self._manifest)
            self._engine = ends_engine(self._manifest, names, self._budget.memory_free)
            if self._engine is None:
                return False
            footprint = Footprint(self._manifest, self._engine)
            self._memory = self._budget.reserve(footprint.ends(), "embedding and head")
            self.spare = footprint.ends_spare()
        return True

    async def get(self) -> Ends:
        """Raises BudgetExceeded, which says what to do, or as `Engine.load_ends`."""
        if not self.reserve():
            raise self._refusal()
        async with self._loading:
            if self._ends is None:
                with self._budget.reserved(self.spare, "loading embedding and head"):
                    self._ends = await self._host.engine.load_ends(
                        self._manifest, self._read, self._engine
                    )
        return self._ends

    async def close(self) -> None:
        if self._ends is not None:
            await self._ends.close()
            self._ends = None
        if self._memory is not None:
            self._memory.release()
            self._memory = None

    def _refusal(self) -> BudgetExceeded:
        names = self._host.engine.names(self._manifest)
        least = min(Footprint(self._manifest, name).ends_total() for name in names)
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
