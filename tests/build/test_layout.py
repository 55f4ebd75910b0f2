"""Weight files: where the bytes lie, and how int4 expands to fp32."""

from __future__ import annotations

import numpy as np

from build.shards.layout import ALIGN, expand, expansion, pack
from build.shards.quantise import dequantise, quantise

DRAW = np.random.default_rng(4)
NORM = DRAW.standard_normal(33).astype(np.float32)
MATRIX = quantise(DRAW.standard_normal((48, 64)).astype(np.float32))
PARTS = {"norm": NORM, "matrix": MATRIX, "table": np.arange(6, dtype=np.float16)}


def test_parts_lie_aligned_and_in_order() -> None:
    slots, file = pack(PARTS)
    assert [slot.name for slot in slots] == ["norm", "matrix.packed", "matrix.scales", "table"]
    end = 0
    for slot in slots:
        assert slot.offset % ALIGN == 0
        assert end <= slot.offset < end + ALIGN
        assert not any(file[end : slot.offset])
        end = slot.offset + slot.length
    assert end == len(file)


def test_slots_point_at_their_bytes() -> None:
    slots, file = pack(PARTS)
    norm, packed, scales, _ = (file[slot.offset : slot.offset + slot.length] for slot in slots)
    assert np.array_equal(np.frombuffer(norm, "<f4"), NORM)
    assert packed == MATRIX.packed.tobytes()
    assert scales == MATRIX.scales.tobytes()


def test_expanding_gives_the_transposed_matrix() -> None:
    slots, file = pack(PARTS)
    wide, steps = expansion(slots)
    made = expand(file, steps)
    at = {slot.name: slot for slot in wide}
    matrix = at["matrix"]
    assert matrix.dims == (64, 48)
    got = np.frombuffer(made, "<f4", 64 * 48, matrix.offset).reshape(64, 48)
    assert np.array_equal(got, dequantise(MATRIX).T)
    norm = made[at["norm"].offset : at["norm"].offset + at["norm"].length]
    assert np.array_equal(np.frombuffer(norm, "<f4"), NORM)


def test_expanding_follows_the_manifests_words() -> None:
    """`DequantiseStep` says in words which nibble goes where: done here one weight at a time."""
    slots, file = pack({"matrix": MATRIX})
    _, [step] = expansion(slots)
    made = expand(file, [step])
    for r, c in ((0, 0), (0, 1), (5, 33), (47, 63)):
        byte = file[step.source + (r * step.k) // 2 + c // 2]
        nibble = byte >> 4 if c % 2 else byte & 15
        [scale] = np.frombuffer(file, "<f2", 1, step.scales + 2 * (r * step.k // 32 + c // 32))
        [got] = np.frombuffer(made, "<f4", 1, step.target + 4 * (c * step.n + r))
        assert got == np.float32(nibble - 8) * np.float32(scale)
