"""Whose connections end when slow nodes together hold too much, and what is given back then."""

from __future__ import annotations

import contextlib
import ctypes
from collections import Counter
from collections.abc import Iterable

from relay_server.node import Node

__all__ = ["excess_holders", "give_back"]


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
