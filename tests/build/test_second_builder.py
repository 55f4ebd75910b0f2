"""Our graphs against those of another builder, onnxruntime-genai's, over the same checkpoints."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from build.shards.builder import build
from build.shards.source import open_source
from tests.build.families import FAMILIES, golden, write_family
from tests.build.swarm import whole_model

MISSING = [
    name
    for name in ("onnxruntime_genai", "onnx_ir", "torch", "transformers")
    if find_spec(name) is None
]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (build/setup.sh oracle)"
    ),
]

TOLERANCE = 2e-4
"""Logits, of about 20 at most: the order of sums differs."""


def theirs(folder: Path, ids: list[int], blocks: int, kv: int, head_dim: int) -> np.ndarray:
    """Logits f32[len(ids), vocab] of the whole sequence at once, by the other builder's graph."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    run = onnxruntime.InferenceSession(
        folder / "model.onnx", options, providers=["CPUExecutionProvider"]
    )
    every = {
        "input_ids": np.array([ids], np.int64),
        "attention_mask": np.ones((1, len(ids)), np.int64),
        "position_ids": np.arange(len(ids), dtype=np.int64)[None],
    }
    feeds = {put.name: every[put.name] for put in run.get_inputs() if put.name in every}
    empty = np.zeros((1, kv, 0, head_dim), np.float32)
    for block in range(blocks):
        for part in ("key", "value"):
            feeds[f"past_key_values.{block}.{part}"] = empty
    [logits] = run.run(["logits"], feeds)
    return np.asarray(logits[0])


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_the_same_checkpoint_has_the_same_logits(name: str, tmp_path: Path) -> None:
    checkpoint = write_family(tmp_path / "checkpoint", name)
    command = [
        sys.executable, "-m", "onnxruntime_genai.models.builder", "-m", str(checkpoint),
        "-o", str(tmp_path / "theirs"), "-p", "fp32", "-e", "cpu", "-c", str(tmp_path / "cache"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    manifest = build(open_source(checkpoint), tmp_path / "ours", name, bits=32).manifest
    said = golden(name)
    ids = said.prompt_ids + said.ids
    want = theirs(tmp_path / "theirs", ids, manifest.blocks, manifest.kv_heads, manifest.head_dim)
    got = whole_model(tmp_path / "ours", manifest).step(ids)
    assert np.abs(got - want).max() < TOLERANCE
    assert list(want[len(said.prompt_ids) - 1 : -1].argmax(-1)) == said.ids
