"""Symmetric int4 in blocks of 32 weights, in the layout of ONNX Runtime's MatMulNBits.

A weight is `(nibble - 8) * scale`, one float32 scale for every 32 weights along the inner (K)
dimension, no zero points: the one form that WebGPU, WASM and native ONNX Runtime all take.
See https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md (MatMulNBits).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

BLOCK = 32
ZERO = 8
"""The nibble that stands for 0."""

_SHRINK = np.linspace(0.75, 1.0, 11)[::-1]
"""Scales tried per block, as shares of the one that fits the largest weight: clipping one
outlier often costs less than rounding the other 31 coarsely."""


@dataclass(frozen=True, slots=True)
class Quantised:
    """A matrix in int4: `packed` u8[N, K/32, 16] (low nibble first), `scales` f32[N, K/32]."""

    packed: Bytes
    scales: Floats

    @property
    def rows(self) -> int:
        """N, the matrix's output size."""
        return int(self.packed.shape[0])

    @property
    def columns(self) -> int:
        """K, the matrix's input size."""
        return int(self.packed.shape[1]) * BLOCK


def quantise(matrix: Floats) -> Quantised:
    """Rounds f32[N, K] to int4; K must be a multiple of 32, else `ValueError`.

    The result is the same to the bit on every machine: only elementwise float64 arithmetic, and
    sums in a fixed order.
    """
    rows, columns = matrix.shape
    if columns % BLOCK:
        raise ValueError(f"the inner size {columns} is not a multiple of {BLOCK}")
    blocks = matrix.reshape(-1, BLOCK).astype(np.float64)
    peak = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1)[:, None], axis=1)[:, 0]
    # The 4-bit range is -8..7, so the weight of largest magnitude goes to -8 whatever its sign.
    widest = peak / -ZERO
    best_error = np.full(len(blocks), np.inf)
    best_scale = np.zeros(len(blocks), np.float32)
    for share in _SHRINK:
        scale = (widest * share).astype(np.float32)
        off = _round(blocks, scale) * scale.astype(np.float64)[:, None] - blocks
        error = np.zeros(len(blocks))
        for column in range(BLOCK):
            error += off[:, column] ** 2
        better = error < best_error
        best_error[better] = error[better]
        best_scale[better] = scale[better]
    nibbles = (_round(blocks, best_scale) + ZERO).astype(np.uint8)
    packed: Bytes = np.bitwise_or(nibbles[:, 0::2], nibbles[:, 1::2] << 4, dtype=np.uint8)
    return Quantised(
        packed=packed.reshape(rows, columns // BLOCK, BLOCK // 2),
        scales=best_scale.reshape(rows, columns // BLOCK),
    )


def dequantise(matrix: Quantised) -> Floats:
    """The f32[N, K] that a `Quantised` stands for; exact, one multiplication a weight."""
    nibbles = np.empty((*matrix.packed.shape[:2], BLOCK), np.uint8)
    nibbles[..., 0::2] = matrix.packed & 15
    nibbles[..., 1::2] = matrix.packed >> 4
    signed = nibbles.astype(np.float32) - np.float32(ZERO)
    return (signed * matrix.scales[..., None]).reshape(matrix.rows, matrix.columns)


def _round(blocks: NDArray[np.float64], scale: Floats) -> NDArray[np.float64]:
    """Nearest steps -8..7 of each block; a block of zeros has scale 0 and stays 0."""
    # In float64: the inverse of the smallest float32 does not fit in one.
    wide = scale.astype(np.float64)
    inverse = np.divide(1.0, wide, out=np.zeros(len(wide)), where=wide != 0)
    return np.clip(np.rint(blocks * inverse[:, None]), -ZERO, ZERO - 1)
