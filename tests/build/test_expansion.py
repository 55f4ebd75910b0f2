"""What the builder says a step makes, and what a tab makes of it, by one set of files and steps."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import numpy as np
import pytest

from pyodide_node.hosts.expansion import expand
from pyodide_node.model.manifest import (
    CopyStep,
    DequantiseBytesStep,
    DequantiseStep,
    ExpandStep,
    IntegerStep,
    UnitStep,
    WidenStep,
)

ROOT = Path(__file__).parents[2]
K, N = 96, 21
"""Rows that fill neither one tile of the tab's loop nor two."""
FILE = 8192
IN_NODE = """
import { readFileSync, writeFileSync } from 'node:fs';
import { ExpandedFile } from './expansion.mjs';
const file = new Uint8Array(readFileSync('file')).buffer;
const all = JSON.parse(readFileSync('steps.json', 'utf8'));
all.forEach((steps, at) => {
  const made = new ExpandedFile(file, steps);
  // As a whole, and as ONNX Runtime asks for it: one tensor at a time.
  writeFileSync(`whole${at}`, made.subarray());
  const last = steps.at(-1);
  writeFileSync(`last${at}`, made.subarray(last.target, last.target + last.length));
});
"""


def vectors() -> tuple[bytes, list[list[ExpandStep]]]:
    """A file, and steps of every kind over it. Its second half are float16 scales."""
    draw = np.random.default_rng(3)
    file = bytearray(draw.bytes(FILE))
    scales = draw.standard_normal(FILE // 4).astype("<f2")
    scales[:6] = [0, -0.0, 6e-8, -6.1e-5, 65504, 1]
    file[FILE // 2 :] = scales.tobytes()
    wide = 4 * K * N
    four = DequantiseStep(source=64, scales=4096, k=K, n=N, target=128, length=wide)
    eight = DequantiseBytesStep(source=65, scales=4098, k=K, n=N, target=0, length=wide)
    halves = WidenStep(source=4096, target=12, length=4 * 2048)
    copy = CopyStep(source=3, target=0, length=100)
    return bytes(file), [
        [copy, four], [eight], [copy],
        [CopyStep(source=0, target=0, length=12), halves],
        [WidenStep(source=4096, target=0, length=20), msgspec.structs.replace(eight, target=64)],
        *(
            [
                IntegerStep(
                    source=64, scales=4096, bits=bits, k=K, n=N, target=0, length=K * N
                ),
                UnitStep(
                    source=64, scales=4096, bits=bits, k=K, n=N, target=K * N, length=4 * N
                ),
            ]
            for bits in (4, 8)
        ),
    ]  # fmt: skip


def test_every_kind_follows_the_manifests_words() -> None:
    """Each number by the docstrings' formulas, one at a time."""
    file, _ = vectors()

    def half(at: int) -> np.float32:
        return np.frombuffer(file, "<f2", 1, at).astype(np.float32)[0]  # type: ignore[no-any-return]

    def number(step: ExpandStep, at: int) -> np.float32:
        return np.frombuffer(expand(file, [step]), "<f4", 1, at)[0]  # type: ignore[no-any-return]

    for row, column in ((0, 0), (0, 1), (20, 95), (7, 33)):
        scale = 2 * (row * K // 32 + column // 32)
        four = DequantiseStep(source=64, scales=4096, k=K, n=N, target=4, length=4 * K * N)
        byte = file[64 + row * K // 2 + column // 2]
        level = byte >> 4 if column % 2 else byte & 15
        want = np.float32(level - 8) * half(4096 + scale)
        assert number(four, 4 + 4 * (column * N + row)) == want
        eight = DequantiseBytesStep(source=65, scales=4098, k=K, n=N, target=0, length=4 * K * N)
        want = np.float32(file[65 + row * K + column] - 128) * half(4098 + scale)
        assert number(eight, 4 * (column * N + row)) == want
    assert number(WidenStep(source=4096, target=8, length=40), 8 + 4 * 4) == 65504


@pytest.mark.parametrize("at", [5, 6])
def test_integers_are_weights_in_units_of_their_row(at: int) -> None:
    file, all_steps = vectors()
    integers, units = all_steps[at]
    four = at == 5
    kind = DequantiseStep if four else DequantiseBytesStep
    weights = expand(file, [kind(source=64, scales=4096, k=K, n=N, target=0, length=4 * K * N)])
    want = np.frombuffer(weights, "<f4").reshape(K, N)
    made = expand(file, [integers, units])
    levels = np.frombuffer(made, np.int8, K * N).reshape(K, N)
    unit = np.frombuffer(made, "<f4", N, K * N)
    assert np.abs(levels).max(axis=0).tolist() == [127] * N
    np.testing.assert_allclose(unit, np.abs(want).max(axis=0) / 127, rtol=1e-6)
    assert (np.abs(levels * unit - want) <= 0.5001 * unit).all()


@pytest.fixture(scope="module")
def in_node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what loader/worker/expansion.ts made of the same vectors."""
    folder = tmp_path_factory.mktemp("expansion")
    file, steps = vectors()
    (folder / "file").write_bytes(file)
    (folder / "steps.json").write_bytes(msgspec.json.encode(steps))
    (folder / "run.mjs").write_text(IN_NODE)
    bundle = [
        "node_modules/.bin/esbuild", "loader/worker/expansion.ts", "--format=esm",
        f"--outfile={folder}/expansion.mjs", "--log-level=error",
    ]  # fmt: skip
    subprocess.run(bundle, cwd=ROOT, check=True)
    subprocess.run(["node", "run.mjs"], cwd=folder, check=True)
    return folder


@pytest.mark.parametrize("at", range(7))
def test_a_tab_makes_the_same_bytes(in_node: Path, at: int) -> None:
    file, all_steps = vectors()
    want = expand(file, all_steps[at])
    last = all_steps[at][-1]
    assert (in_node / f"whole{at}").read_bytes() == want
    assert (in_node / f"last{at}").read_bytes() == want[last.target : last.target + last.length]
