"""Rotary position tables, plain or stretched the way Llama 3.1 and later stretch them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from build.shards.quantise import Floats


@dataclass(frozen=True, slots=True)
class Llama3Scaling:
    """Slow rotations run `factor` times slower, fast ones unchanged, the rest in between.

    Names and meaning as in the `rope_scaling` of a Llama 3.1 `config.json`.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True, slots=True)
class RopeFactors:
    """How many times slower each of the `head_dim / 2` rotations runs; what GGUF keeps of a
    stretched table."""

    values: tuple[float, ...]


RopeScaling = Llama3Scaling | RopeFactors


def rotary_tables(
    positions: int, head_dim: int, theta: float, scaling: RopeScaling | None = None
) -> tuple[Floats, Floats]:
    """(cos, sin), each f32[positions, head_dim / 2], for GroupQueryAttention's half-split order."""
    speeds = theta ** -(np.arange(0, head_dim, 2) / head_dim)
    if isinstance(scaling, RopeFactors):
        speeds = speeds / np.array(scaling.values)
    elif scaling:
        turns = scaling.original_max_position_embeddings * speeds / (2 * np.pi)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
        speeds = speeds * (kept + (1 - kept) / scaling.factor)
    angles = np.outer(np.arange(positions), speeds)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
