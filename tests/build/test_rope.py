"""Rotary tables, against the published formulas."""

from __future__ import annotations

import math

import numpy as np

from build.shards.rope import Llama3Scaling, rotary_tables


def test_turns_each_pair_at_its_own_speed() -> None:
    cos, sin = rotary_tables(7, 8, 100.0)
    assert cos.shape == sin.shape == (7, 4)
    for position in range(7):
        for pair in range(4):
            angle = position * 100.0 ** (-2 * pair / 8)
            assert math.isclose(cos[position, pair], math.cos(angle), abs_tol=1e-6)
            assert math.isclose(sin[position, pair], math.sin(angle), abs_tol=1e-6)


def test_llama3_scaling_slows_only_what_turned_slowly() -> None:
    """Step by step as in the reference implementation of Llama 3.1."""
    scaling = Llama3Scaling(8.0, 1.0, 4.0, 8192)
    _, sin = rotary_tables(2, 128, 500000.0, scaling)
    seen = set()
    for pair in range(64):
        speed = 500000.0 ** (-2 * pair / 128)
        length = 2 * math.pi / speed
        if length < 8192 / 4.0:
            seen.add("fast")
        elif length > 8192 / 1.0:
            seen.add("slow")
            speed /= 8.0
        else:
            seen.add("between")
            smooth = (8192 / length - 1.0) / (4.0 - 1.0)
            speed = (1 - smooth) * speed / 8.0 + smooth * speed
        assert np.isclose(sin[1, pair], math.sin(speed), rtol=1e-5)
    assert seen == {"fast", "between", "slow"}
