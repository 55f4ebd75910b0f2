"""A transformer so small that thousands of its tokens cost nothing, and honest about order.

One attention head with a slope by distance and a wave by position, so that every output depends
on every earlier position, on their order and on each block's weights. All sums are in float64 and
only borders are rounded to float32: a position gives the same bits alone, in a chunk, or replayed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyodide_node.hosts.steps import Floats

__all__ = ["HEAD_DIM", "Block", "block_shape"]

Doubles = NDArray[np.float64]

HEAD_DIM = 8
SLOPE = 0.05
"""How much a score falls with each position of distance: order shows, nothing is forgotten."""


def block_shape(hidden_size: int) -> tuple[int, int]:
    """Rows and columns of the float32 matrix that is one block's weights file."""
    return 4 * HEAD_DIM + hidden_size, hidden_size


class Block:
    """One block, of its weights file."""

    def __init__(self, weights: bytes, hidden_size: int) -> None:
        shape = block_shape(hidden_size)
        matrix = np.frombuffer(weights, "<f4").reshape(shape).astype(np.float64)
        self.query, self.key, self.value, self.out = (
            matrix[i * HEAD_DIM : (i + 1) * HEAD_DIM] for i in range(4)
        )
        self.mix = matrix[4 * HEAD_DIM :]

    def step(self, hidden: Floats, kv: Doubles, position: int) -> Floats:
        """The next float32[hidden] at `position`; writes kv[:, position] of float64[2, P, d]."""
        x = hidden.astype(np.float64)
        x /= np.sqrt(np.mean(x * x) + 1e-6)
        x += np.sin(position * np.arange(1, x.size + 1))
        kv[0, position] = self.key @ x
        kv[1, position] = self.value @ x
        keys, values = kv[:, : position + 1]
        scores = keys @ (self.query @ x) / np.sqrt(HEAD_DIM)
        scores += SLOPE * np.arange(-position, 1)
        weights = np.exp(scores - scores.max())
        attended = (weights @ values) / weights.sum()
        result: NDArray[Any] = 0.5 * x + 3.0 * attended @ self.out + np.tanh(self.mix @ x)
        return result.astype(np.float32)
