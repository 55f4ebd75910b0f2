"""The numbers of a step, as every engine on CPython reads them.

NaN or infinity in one position would spread to all later ones, and no answer would tell where it
came from.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pyodide_node.errors import EngineError
from pyodide_node.hosts.base import Buffer

__all__ = ["Floats", "floats"]

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
