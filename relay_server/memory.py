"""Whose connections end when slow nodes together hold too much."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from relay_server.node import Node

__all__ = ["excess_holders"]


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
