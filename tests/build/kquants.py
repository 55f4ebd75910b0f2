"""Rows rounded to K-quants, plainly: the format's own package unpacks these but does not pack them.

Each sub-block gets the range it spans, without llama.cpp's search for a better one.
Source: https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray

Rows = NDArray[np.uint8]


def quantise(rows: NDArray[np.float32], kind: Kind) -> Rows:
    """f32[rows, columns] -> u8[rows, bytes]; columns are a multiple of 256."""
    blocks = rows.reshape(-1, 256).astype(np.float64)
    return PACK[kind](blocks).reshape(len(rows), -1)


def _with_mins(blocks: NDArray[np.float64], bits: int) -> Rows:
    """Q4_K and Q5_K: eight sub-blocks of 32, each with a scale and a minimum of 6 bits."""
    subs = blocks.reshape(-1, 8, 32)
    least = np.minimum(subs.min(-1), 0)
    widths = (subs.max(-1) - least) / (2**bits - 1)
    d = (widths.max(-1) / 63).astype(np.float16)
    dmin = ((-least).max(-1) / 63).astype(np.float16)
    scale = _steps(widths, d)
    low = _steps(-least, dmin)
    each = d.astype(np.float64)[:, None] * scale
    shift = dmin.astype(np.float64)[:, None] * low
    inverse = np.divide(1, each, out=np.zeros_like(each), where=each != 0)
    q = np.clip(np.rint((subs + shift[..., None]) * inverse[..., None]), 0, 2**bits - 1)
    q = q.astype(np.uint8)
    s, m = scale.astype(np.uint8), low.astype(np.uint8)
    packed = np.concatenate(
        [
            s[:, :4] | (s[:, 4:] >> 4) << 6,
            m[:, :4] | (m[:, 4:] >> 4) << 6,
            (s[:, 4:] & 15) | (m[:, 4:] & 15) << 4,
        ],
        axis=-1,
    )
    nibbles = (q[:, 0::2] & 15) | (q[:, 1::2] & 15) << 4
    parts = [d[:, None].view(np.uint8), dmin[:, None].view(np.uint8), packed]
    if bits == 5:
        high = np.zeros((len(q), 32), np.uint8)
        for sub in range(8):
            high |= (q[:, sub] >> 4) << sub
        parts.append(high)
    return np.concatenate([*parts, nibbles.reshape(len(q), -1)], axis=-1)


def _q6_k(blocks: NDArray[np.float64]) -> Rows:
    """Sixteen sub-blocks of 16, each with a scale of 8 bits and no minimum."""
    subs = blocks.reshape(-1, 16, 16)
    widths = np.abs(subs).max(-1) / 31
    d = (widths.max(-1) / 127).astype(np.float16)
    scale = _steps(widths, d, 127)
    each = d.astype(np.float64)[:, None] * scale
    inverse = np.divide(1, each, out=np.zeros_like(each), where=each != 0)
    q = np.clip(np.rint(subs * inverse[..., None]), -32, 31) + 32
    quarters = q.astype(np.uint8).reshape(-1, 2, 4, 32)
    low = quarters[:, :, :2] & 15 | (quarters[:, :, 2:] & 15) << 4
    high = np.zeros((len(q), 2, 32), np.uint8)
    for quarter in range(4):
        high |= (quarters[:, :, quarter] >> 4) << 2 * quarter
    return np.concatenate(
        [
            low.reshape(len(q), -1),
            high.reshape(len(q), -1),
            scale.astype(np.int8).view(np.uint8),
            d[:, None].view(np.uint8),
        ],
        axis=-1,
    )


def _steps(
    values: NDArray[np.float64], unit: NDArray[np.float16], most: int = 63
) -> NDArray[np.float64]:
    wide = unit.astype(np.float64)[:, None]
    return np.clip(
        np.rint(np.divide(values, wide, out=np.zeros_like(values), where=wide != 0)), 0, most
    )


PACK: dict[Kind, Callable[[NDArray[np.float64]], Rows]] = {
    Kind.Q4_K: lambda blocks: _with_mins(blocks, 4),
    Kind.Q5_K: lambda blocks: _with_mins(blocks, 5),
    Kind.Q6_K: _q6_k,
}
