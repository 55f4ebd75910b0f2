"""How much may wait for slow nodes, whose connections end when together they hold too much, and
what is given back then."""

from __future__ import annotations

import contextlib
import ctypes
from collections import Counter
from collections.abc import Collection, Iterable

from pyodide_node.wire import limits
from relay_server.node import Node
from relay_server.settings import RelaySettings

__all__ = ["MemoryWatch", "excess_holders", "give_back"]


class MemoryWatch:
    """Over what a relay holds for its nodes."""

    def __init__(self, settings: RelaySettings) -> None:
        self.queue_limit = settings.queue_bytes
        """Bytes that may wait for one node."""
        self._settings = settings
        self._arrived = self._most_held = 0

    def arrived(self, size: int) -> bool:
        """Whether so much has come since the last look that there may be much to hold."""
        self._arrived += size
        return self._arrived > self._settings.total_queue_bytes // 8

    def look(self, nodes: Collection[Node]) -> list[Node]:
        """Those to cut."""
        self._arrived = 0
        total, held = self._settings.total_queue_bytes, sum(node.held for node in nodes)
        if held < self._most_held // 4:
            give_back()
            self._most_held = 0
        elif held > total // 8:
            self._most_held = max(self._most_held, held)
        self.queue_limit = self._settings.queue_bytes
        if held <= total:
            return []
        self.queue_limit = min(self.queue_limit, limits.MESSAGE)
        return excess_holders(nodes, held, total)


def give_back() -> None:
    """Return what is free to the system: glibc keeps it where anything lives above it."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def excess_holders(nodes: Iterable[Node], held: int, limit: int) -> list[Node]:
    """Those to cut, so that no more than `limit` bytes of `held` stay: none below one and a half
    times the limit, then those of the addresses that hold most, the worst first."""
    if held <= limit + limit // 2:
        return []
    holders = [(node.held, node) for node in nodes if node.held]
    of_address: Counter[int] = Counter()
    for size, node in holders:
        of_address[id(node.network)] += size
    holders.sort(key=lambda one: (of_address[id(one[1].network)], one[0]), reverse=True)
    cut = []
    for size, node in holders:
        if held <= limit:
            break
        held -= size
        cut.append(node)
    return cut
