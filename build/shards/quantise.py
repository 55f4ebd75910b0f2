"""Symmetric blocks of 32 weights in 4 or 8 bits, in the layout of ONNX Runtime's MatMulNBits.

A weight is `(level - zero) * scale`: one float16 scale for every 32 weights along the inner (K)
dimension, the level's middle as zero and no zero points: the one form that WebGPU, WASM and native
ONNX Runtime all take.
See https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md (MatMulNBits).
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pyodide_node.hosts.expansion import dequantised

Floats = NDArray[np.float32]
Halves = NDArray[np.float16]
Bytes = NDArray[np.uint8]
Bits = Literal[4, 8]

BLOCK = 32

_SHARES: dict[Bits, Floats] = {
    4: np.linspace(0.75, 1.0, 11, dtype=np.float32)[::-1],
    8: np.ones(1, np.float32),
}
"""Scales tried per block, as shares of the one that fits the largest weight: in 4 bits, clipping
one outlier often costs less than rounding the other 31 coarsely."""

_CHUNK = 1 << 13
"""Blocks worked on together: 1 MB of float32, so that they stay in a core's cache."""

_WIDEST = np.finfo(np.float16).max


@dataclass(frozen=True, slots=True)
class Quantised:
    """A matrix in blocks: `packed` u8[N, K/32, 4 * bits], `scales` f16[N, K/32].

    In 4 bits the low half of a byte comes first.
    """

    packed: Bytes
    scales: Halves

    @property
    def bits(self) -> Bits:
        """Of a weight."""
        return 4 if self.packed.shape[2] * 2 == BLOCK else 8

    @property
    def rows(self) -> int:
        """N, the matrix's output size."""
        return int(self.packed.shape[0])

    @property
    def columns(self) -> int:
        """K, the matrix's input size."""
        return int(self.packed.shape[1]) * BLOCK


def quantise(matrix: Floats, bits: Bits = 4) -> Quantised:
    """Rounds f32[N, K]; K must be a multiple of 32 and weights in reach of float16 scales, else
    `ValueError`.

    Weights are rounded to the scale as float16 holds it, so that storing it so loses nothing. The
    result is the same to the bit on every machine: only elementwise float32 arithmetic, and sums
    in a fixed order.
    """
    rows, columns = matrix.shape
    if columns % BLOCK:
        raise ValueError(f"the inner size {columns} is not a multiple of {BLOCK}")
    blocks = np.ascontiguousarray(matrix, np.float32).reshape(-1, BLOCK)
    levels = np.empty(blocks.shape, np.uint8)
    scales = np.empty(len(blocks), np.float16)

    def work(at: int) -> None:
        part = slice(at, at + _CHUNK)
        levels[part], scales[part] = _round_blocks(blocks[part], bits)

    starts = range(0, len(blocks), _CHUNK)
    if len(starts) == 1:
        work(0)
    else:
        # numpy lets go of the interpreter's lock while it computes.
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            list(threads.map(work, starts))
    packed: Bytes = levels
    if bits == 4:
        packed = np.bitwise_or(levels[:, 0::2], levels[:, 1::2] << 4, dtype=np.uint8)
    return Quantised(
        packed=packed.reshape(rows, columns // BLOCK, 4 * bits),
        scales=scales.reshape(rows, columns // BLOCK),
    )


def dequantise(matrix: Quantised) -> Floats:
    """The f32[N, K] that a `Quantised` stands for; exact, one multiplication a weight."""
    return dequantised(matrix.packed, matrix.scales)


def _round_blocks(blocks: Floats, bits: Bits) -> tuple[Bytes, Halves]:
    """Levels u8[B, 32] and scales f16[B] of f32[B, 32]."""
    zero = 1 << bits - 1
    peak = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1)[:, None], axis=1)
    # There is one more level below zero than above: the largest weight goes there, whatever its
    # sign.
    widest = peak / np.float32(-zero)
    if not (np.abs(widest) <= _WIDEST).all():
        raise ValueError(f"weights of {np.abs(peak).max():g} are out of reach of float16 scales")
    best_error = np.full(len(blocks), np.inf, np.float32)
    best_scale = np.zeros(len(blocks), np.float16)
    best = np.zeros_like(blocks)
    steps, off = np.empty_like(blocks), np.empty_like(blocks)
    for share in _SHARES[bits]:
        scale = (widest * share).astype(np.float16)
        wide = scale.astype(np.float32)
        # A block of zeros has scale 0 and stays 0.
        inverse = np.divide(1, wide, out=np.zeros_like(wide), where=wide != 0)
        np.rint(np.multiply(blocks, inverse, out=steps), out=steps)
        np.maximum(np.minimum(steps, zero - 1, out=steps), -zero, out=steps)
        np.subtract(np.multiply(steps, wide, out=off), blocks, out=off)
        error = np.multiply(off, off, out=off)
        # Halves added to halves: a sum in one order on every machine.
        for half in (16, 8, 4, 2, 1):
            error = error[:, :half] + error[:, half:]
        better = error[:, 0] < best_error
        best_error[better] = error[better, 0]
        best_scale[better] = scale[better, 0]
        np.copyto(best, steps, where=better[:, None])
    return (best + zero).astype(np.uint8), best_scale
