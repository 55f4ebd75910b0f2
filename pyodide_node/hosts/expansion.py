"""What a variant's graphs read, made of a weights file: a manifest's steps, in numpy.

Tabs do the same in loader/worker/expansion.ts, to the byte.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pyodide_node.hosts.base import Buffer
from pyodide_node.hosts.steps import Floats
from pyodide_node.model.manifest import (
    BLOCK_SIZE,
    CopyStep,
    DequantiseStep,
    ExpandStep,
    IntegerStep,
    UnitStep,
    WidenStep,
)
from pyodide_node.model.table import Table

__all__ = ["dequantised", "expand", "widened_rows"]


def dequantised(packed: NDArray[np.uint8], scales: NDArray[np.float16]) -> Floats:
    """f32[N, K] of u8[N, K/32, 16] (4 bits, low half first) or u8[N, K/32, 32] (8 bits) and their
    f16[N, K/32]; exact, one multiplication a weight."""
    rows, blocks, width = packed.shape
    if width == BLOCK_SIZE:
        levels, zero = packed, 128
    else:
        levels, zero = np.empty((rows, blocks, BLOCK_SIZE), np.uint8), 8
        levels[..., 0::2] = packed & 15
        levels[..., 1::2] = packed >> 4
    signed = levels.astype(np.float32) - np.float32(zero)
    return (signed * scales.astype(np.float32)[..., None]).reshape(rows, blocks * BLOCK_SIZE)


def widened_rows(weights: Buffer, scales: Buffer, table: Table) -> bytes:
    """float32[n, columns] of some rows of an embedding; see hosts/rows.py."""
    if table.bits == 32:
        return bytes(weights)
    if table.bits == 16:
        return bytes(np.frombuffer(weights, "<f2").astype("<f4").tobytes())
    blocks = table.columns // BLOCK_SIZE
    packed = np.frombuffer(weights, np.uint8).reshape(-1, blocks, 4 * table.bits)
    made = dequantised(packed, np.frombuffer(scales, "<f2").reshape(-1, blocks))
    return bytes(made.astype("<f4", copy=False).tobytes())


def expand(file: bytes, steps: Sequence[ExpandStep]) -> bytes:
    """Runs the steps, which the manifest's decoder has checked against the file's size."""
    out = bytearray(max(step.target + step.length for step in steps))
    for step in steps:
        out[step.target : step.target + step.length] = _made(file, step)
    return bytes(out)


def _made(file: bytes, step: ExpandStep) -> bytes:
    if isinstance(step, CopyStep):
        return file[step.source : step.source + step.length]
    if isinstance(step, WidenStep):
        return np.frombuffer(file, "<f2", step.length // 4, step.source).astype("<f4").tobytes()
    blocks = step.k // BLOCK_SIZE
    four = isinstance(step, DequantiseStep) or getattr(step, "bits", 8) == 4
    width = BLOCK_SIZE // 2 if four else BLOCK_SIZE
    packed = np.frombuffer(file, np.uint8, step.n * blocks * width, step.source)
    scales = np.frombuffer(file, "<f2", step.n * blocks, step.scales)
    weights = dequantised(packed.reshape(step.n, blocks, width), scales.reshape(step.n, blocks))
    if isinstance(step, IntegerStep | UnitStep):
        units = np.abs(weights).max(axis=1) / np.float32(127)
        if isinstance(step, UnitStep):
            return bytes(units.astype("<f4").tobytes())
        divisor = np.where(units == 0, np.float32(1), units)
        weights = np.rint(weights / divisor[:, None]).astype(np.int8)
        return np.ascontiguousarray(weights.T).tobytes()
    return np.ascontiguousarray(weights.T).astype("<f4").tobytes()
