"""What this node keeps on disk, within the visitor's cap: least recently used goes first."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pyodide_node.budget import MEGABYTE, RUNTIME_STORAGE, Budget
from pyodide_node.hosts.base import Host

__all__ = ["Storage"]


class Storage:
    """Counts the pieces that the store keeps. `changed()` is called when some were dropped."""

    def __init__(self, host: Host, budget: Budget, changed: Callable[[], None]) -> None:
        self._store = host.store
        self._budget = budget
        self._changed = changed
        self._sizes: dict[str, int] = {}  # least recently used first
        self._pinned: frozenset[str] = frozenset()
        self._kept = 0
        self._reserved = 0
        self._runtime = RUNTIME_STORAGE[host.kind] if host.store.persistent else 0
        self._refused: int | None = None
        self.version = 0
        """Grows whenever something comes or goes."""

    async def open(self) -> None:
        """Look at what an earlier run kept; what is over the cap goes at once."""
        self._sizes = await self._store.held()
        self._kept = sum(self._sizes.values())
        self.version += 1
        await self.enforce()

    @property
    def used(self) -> int:
        """Bytes, the runtime's own files included."""
        return self._kept + self._runtime

    @property
    def available(self) -> int:
        """Bytes that new pieces may take, if all that is not pinned went for them."""
        if not self._store.persistent:
            return 0
        pinned = sum(self._sizes.get(sha256, 0) for sha256 in self._pinned)
        return max(0, self._cap() - self._runtime - pinned)

    def has(self, sha256: str) -> bool:
        return sha256 in self._sizes

    def pin(self, pieces: Iterable[str]) -> None:
        """Of the span in use: these go last. They replace those pinned before."""
        self._pinned = frozenset(pieces)

    async def room(self, size: int) -> bool:
        """Make room for so many bytes more, and set it aside until `release`; False, and nothing
        is dropped, when there is none."""
        if not self._store.persistent:
            return False
        over = self.used + self._reserved + size - self._cap()
        self._reserved += size
        if over > 0 and not await self._evict(
            over, [sha256 for sha256 in self._sizes if not self._pins(sha256)]
        ):
            self._reserved -= size
            return False
        return True

    def release(self, size: int) -> None:
        """What `room` had set aside has come, or will not."""
        self._reserved -= size

    async def enforce(self) -> None:
        """The visitor may have lowered the cap: what is over it goes, pinned pieces last."""
        self._refused = None
        over = self.used - self._cap()
        if over > 0:
            await self._evict(over, sorted(self._sizes, key=self._pins), all_it_can=True)

    def came(self, sha256: str, size: int, kept: bool) -> None:
        """The store was asked to keep this piece; a full disk keeps nothing, whatever the cap."""
        if kept:
            if sha256 not in self._sizes:
                self._kept += size
                self.version += 1
            self._sizes[sha256] = size
        elif self._store.persistent:
            self._refused = self.used

    def rested(self) -> None:
        """Something new is to be kept: the disk may have room again."""
        self._refused = None

    def touch(self, sha256: str) -> None:
        if sha256 in self._sizes:
            self._sizes[sha256] = self._sizes.pop(sha256)

    def forget(self, sha256: str) -> None:
        """The store found it damaged or gone."""
        self._kept -= self._sizes.pop(sha256, 0)
        self.version += 1

    def _pins(self, sha256: str) -> bool:
        return sha256 in self._pinned

    def _cap(self) -> int:
        cap = self._budget.limits.storage * MEGABYTE
        return cap if self._refused is None else min(cap, self._refused)

    async def _evict(self, over: int, order: list[str], *, all_it_can: bool = False) -> bool:
        going: list[str] = []
        freed = 0
        for sha256 in order:
            if freed >= over:
                break
            going.append(sha256)
            freed += self._sizes[sha256]
        if freed < over and not all_it_can:
            return False
        for sha256 in going:
            self.forget(sha256)
        for sha256 in going:
            await self._store.drop(sha256)
        if going:
            self._changed()
        return True
