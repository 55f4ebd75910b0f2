"""Which blocks a node should serve. Pure; after Petals' block selection (Borzunov et al. 2023).

The swarm is as fast as its weakest block, so a node takes the contiguous window whose coverage,
sorted, is smallest, and moves only when that lifts the weakest block enough to be worth loading
other weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Served", "choose_span", "coverage", "should_move"]

MOVE_GAIN = 1.2
"""A move must lift the swarm's weakest block by this factor: hysteresis against wandering."""


@dataclass(frozen=True, slots=True)
class Served:
    """Blocks [first, last) by somebody, at `throughput` positions·blocks a second."""

    first: int
    last: int
    throughput: float


def coverage(blocks: int, others: Iterable[Served]) -> list[float]:
    """Throughput that stands behind each block."""
    total = [0.0] * blocks
    for served in others:
        for block in range(max(0, served.first), min(blocks, served.last)):
            total[block] += served.throughput / (served.last - served.first)
    return total


def choose_span(blocks: int, room: int, others: Sequence[Served], tie: int = 0) -> tuple[int, int]:
    """The window of `room` blocks that the swarm needs most; the whole model when it fits.

    Among equally needed windows `tie` (any number, different at each node) chooses one that
    starts on a multiple of `room`, so that nodes that arrive together spread without gaps.
    """
    room = max(1, min(room, blocks))
    total = coverage(blocks, others)
    need = [sorted(total[start : start + room]) for start in range(blocks - room + 1)]
    least = min(need)
    starts = [start for start, windows in enumerate(need) if windows == least]
    aligned = [start for start in starts if start % room == 0 or start + room == blocks] or starts
    start = aligned[tie % len(aligned)]
    return start, start + room


def should_move(
    blocks: int, mine: Served, others: Sequence[Served], tie: int = 0
) -> tuple[int, int] | None:
    """A better span for the node that serves `mine`, or None when staying is as good."""
    room = mine.last - mine.first
    target = choose_span(blocks, room, others, tie)
    if target == (mine.first, mine.last):
        return None
    moved = Served(*target, mine.throughput)
    stay = sorted(coverage(blocks, [*others, mine]))
    move = sorted(coverage(blocks, [*others, moved]))
    if move[0] > stay[0] * MOVE_GAIN:
        return target
    # While some block has nobody the weakest stays at zero: then fewer such blocks is better.
    return target if move.count(0.0) < stay.count(0.0) else None
