"""The cheapest chain of spans from the first block to the last. Pure."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pyodide_node.errors import NoRoute

__all__ = ["Hop", "Offer", "find_route", "uncovered"]

HOP_COST = 0.002
"""Seconds a hop costs apart from network and blocks: framing, hand-over, queueing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A peer that can run any blocks within [first, last)."""

    peer: bytes
    first: int
    last: int
    seconds_per_block: float
    """For one position."""
    latency: float
    """Seconds one way; 0 for the asker itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One stage of a route: `peer` runs blocks [first, last)."""

    peer: bytes
    first: int
    last: int


def find_route(blocks: int, offers: Sequence[Offer]) -> tuple[list[Hop], float]:
    """Hops that cover blocks 0…`blocks` in order, and the seconds expected for one position.

    Dijkstra over block borders; a span may be entered and left anywhere within it. The way back
    to the asker is charged to the last hop. Raises NoRoute with the first block nobody serves.
    """
    usable = [offer for offer in offers if _usable(offer, blocks)]
    best: dict[int, float] = {0: 0.0}
    came: dict[int, Hop] = {}
    queue: list[tuple[float, int]] = [(0.0, 0)]
    while queue:
        cost, block = heapq.heappop(queue)
        if cost > best.get(block, float("inf")):
            continue
        if block == blocks:
            return _unwind(came, blocks), cost
        for offer in usable:
            if not offer.first <= block < offer.last:
                continue
            for end in range(block + 1, offer.last + 1):
                reached = cost + _cost(offer, end - block, final=end == blocks)
                if reached < best.get(end, float("inf")):
                    best[end] = reached
                    came[end] = Hop(peer=offer.peer, first=block, last=end)
                    heapq.heappush(queue, (reached, end))
    missing = uncovered(blocks, usable)
    raise NoRoute(
        f"nobody serves block {missing[0]} of {blocks} just now; wait for more visitors, or give"
        " this node more memory so that it can run the missing blocks itself",
        missing=missing[0],
        blocks=missing,
    )


def uncovered(blocks: int, offers: Iterable[Offer]) -> list[int]:
    """Blocks that nobody offers."""
    covered = {block for offer in offers for block in range(offer.first, offer.last)}
    return [block for block in range(blocks) if block not in covered]


def _usable(offer: Offer, blocks: int) -> bool:
    """Whether the span is one of this model, at a speed that can be compared."""
    finite = math.isfinite(offer.seconds_per_block) and math.isfinite(offer.latency)
    return finite and 0 <= offer.first < offer.last <= blocks


def _cost(offer: Offer, blocks: int, *, final: bool) -> float:
    trips = 2 if final else 1
    return HOP_COST + trips * offer.latency + blocks * offer.seconds_per_block


def _unwind(came: dict[int, Hop], blocks: int) -> list[Hop]:
    hops: list[Hop] = []
    block = blocks
    while block > 0:
        hop = came[block]
        hops.append(hop)
        block = hop.first
    hops.reverse()
    return hops
