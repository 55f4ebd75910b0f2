"""What every engine on CPython checks before a step runs.

A step comes from a stranger; its numbers size arrays and index the cache. NaN or infinity in
one position would spread to all later ones, and no answer would tell where it came from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pyodide_node.errors import EngineError
from pyodide_node.hosts.base import Buffer

__all__ = ["Floats", "check_cache", "check_ids", "check_sampling", "check_step", "floats"]

Floats = NDArray[np.float32]


def floats(data: Buffer, rows: int, width: int) -> Floats:
    """A float32[rows, width] view of `data`. Raises EngineError for another size, NaN or inf."""
    view = memoryview(data)
    if rows < 1 or view.nbytes != 4 * rows * width:
        raise EngineError(
            f"{view.nbytes} bytes are not float32[{rows}, {width}]", bytes=view.nbytes
        )
    array = np.frombuffer(view, dtype="<f4").reshape(rows, width)
    # The sum is NaN or infinite if any value is, and makes no array of booleans.
    if not np.isfinite(array.sum(dtype=np.float64)):
        raise EngineError("a hidden state holds NaN or infinity: the stage before this is broken")
    return array


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
