"""A head in parts says what it says in one piece."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from build.shards import cut as module
from build.shards.layout import Slot
from build.shards.reference import session
from pyodide_node.model.manifest import Manifest
from tests.wide_model import LLAMA_8B, make_wide_model

SMALL = replace(
    LLAMA_8B,
    blocks=1, hidden_size=64, intermediate_size=96, heads=2, kv_heads=1, head_dim=32,
    vocab_size=1000,
)  # fmt: skip


def slots(rows: int) -> list[Slot]:
    return [
        Slot("norm", "vector", "float32", (64,), 0),
        Slot("table.packed", "packed", "uint8", (rows, 2, 16), 256),
        Slot("table.scales", "scales", "float16", (rows, 2), 256 + 32 * rows),
    ]


@pytest.mark.parametrize("rows", [5, 6, 7, 100])
def test_parts_are_the_same_bytes(rows: int) -> None:
    made, names = module.cut(slots(rows), 6 * 4 * 64)
    assert len(names) == -(-rows // 6)
    for kind in ("packed", "scales"):
        parts = [slot for slot in made if slot.kind == kind]
        (whole,) = (slot for slot in slots(rows) if slot.kind == kind)
        assert parts[0].offset == whole.offset
        assert parts[-1].end == whole.end
        for before, after in itertools.pairwise(parts):
            assert before.end == after.offset
    assert [slot.name for slot in made].count("norm") == 1


def test_a_head_in_parts_gives_the_same_candidates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_wide_model(tmp_path / "whole", SMALL)
    plain = module.cut
    monkeypatch.setattr("build.shards.graphs.cut", lambda slots: plain(slots, 4 * 64 * 30))
    parts = make_wide_model(tmp_path / "parts", SMALL)
    assert parts.head == whole.head
    assert parts.graph("gpu-fp32", "head") != whole.graph("gpu-fp32", "head")
    one, other = candidates(tmp_path / "whole", whole), candidates(tmp_path / "parts", parts)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def candidates(folder: Path, manifest: Manifest) -> list[object]:
    graph = (folder / "blobs" / manifest.graph("gpu-fp32", "head").sha256).read_bytes()
    file = (folder / "blobs" / manifest.head.sha256).read_bytes()
    feeds = {
        "hidden_in": np.random.default_rng(5).normal(0, 1, (1, 3, 64)).astype(np.float32),
        "temperature": np.ones(1, np.float32),
        "k": np.array([20], np.int64),
    }
    return list(session(graph, {"head.bin": file}).run(None, feeds))
