"""What every engine checks of a step before it runs, whatever it computes with.

A step comes from a stranger; its numbers size arrays and index the cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pyodide_node.errors import EngineError

__all__ = ["check_cache", "check_ids", "check_sampling", "check_step"]


def check_step(held: int, capacity: int, position: int, count: int) -> None:
    """Positions [position, position + count) must follow on, or rewind, a cache of `held`."""
    if not 0 <= position <= held:
        raise EngineError(
            f"position {position} leaves a gap after {held}: replay from there", held=held
        )
    if count < 1 or position + count > capacity:
        raise EngineError(
            f"positions [{position}, {position + count}) do not fit in {capacity}",
            capacity=capacity,
        )


def check_cache(
    first: int, last: int, capacity: int, *, within: tuple[int, int], context: int
) -> None:
    """Blocks [first, last) must be of the span `within`; `capacity` at most the context."""
    if not within[0] <= first < last <= within[1]:
        raise EngineError(f"blocks [{first}, {last}) are not in the span {list(within)}")
    if not 1 <= capacity <= context:
        raise EngineError(f"{capacity} positions in a context of {context}", context=context)


def check_ids(ids: Sequence[int], vocabulary: int) -> None:
    if not ids or not all(0 <= one < vocabulary for one in ids):
        raise EngineError(f"token ids must be in [0, {vocabulary})")


def check_sampling(temperature: float, k: int) -> None:
    if not (0 < temperature < math.inf and k >= 1):
        raise EngineError(f"cannot sample {k} candidates at temperature {temperature}")
