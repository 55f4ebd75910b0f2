"""The graphs of "wasm-int8": near the weights they come from, and the same however one steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from build.shards.quantise import Floats
from build.shards.reference import session
from pyodide_node.hosts.expansion import expand
from pyodide_node.model.manifest import Blob, Manifest, Variant
from tests.wide_model import LLAMA_8B, make_wide_model

SMALL = replace(
    LLAMA_8B,
    blocks=2, hidden_size=128, intermediate_size=352, heads=4, kv_heads=2, head_dim=32,
)  # fmt: skip
POSITIONS = 12


class Model:
    """Both blocks of the small model in one session."""

    def __init__(self, folder: Path, manifest: Manifest, variant: Variant) -> None:
        def read(blob: Blob) -> bytes:
            return (folder / "blobs" / blob.sha256).read_bytes()

        files = {name: read(blob) for name, blob in manifest.span_blobs(0, 2).items()}
        if steps := manifest.graphs.variants[variant].expand:
            for name in ("layer0.bin", "layer1.bin"):
                files[name] = expand(files[name], steps.layer)
        self._session = session(read(manifest.graph(variant, 2)), files)
        self._names = [put.name for put in self._session.get_outputs()]

    def run(self, hidden: Floats, *, by: int) -> Floats:
        """`by` positions a step."""
        empty = np.zeros((1, SMALL.kv_heads, 0, SMALL.head_dim), np.float32)
        past = {f"past_{k}_{part}": empty for k in range(2) for part in ("key", "value")}
        parts = []
        for at in range(0, hidden.shape[1], by):
            part = hidden[:, at : at + by]
            total = at + part.shape[1]
            feeds = {
                "hidden_in": part,
                "seqlens_k": np.array([total - 1], np.int32),
                "total_sequence_length": np.array(total, np.int32),
            }
            out = dict(zip(self._names, self._session.run(None, feeds | past), strict=True))
            past = {name: out[name.replace("past", "present")] for name in past}
            parts.append(out["hidden_out"])
        return np.concatenate(parts, axis=1)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("small")
    return folder, make_wide_model(folder, SMALL)


@pytest.fixture
def hidden() -> Floats:
    rows = np.random.default_rng(4).normal(0, 1, (1, POSITIONS, SMALL.hidden_size))
    rows[:, 3] *= 50  # one position that would spoil a scale shared with others
    return rows.astype(np.float32)


def test_integers_come_near_the_weights_as_they_are(
    small: tuple[Path, Manifest], hidden: Floats
) -> None:
    want = Model(*small, "gpu-fp32").run(hidden, by=POSITIONS)
    made = Model(*small, "wasm-int8").run(hidden, by=POSITIONS)
    off = np.linalg.norm(made - want, axis=2) / np.linalg.norm(want, axis=2)
    assert 0 < off.max() < 0.05


def test_a_position_comes_out_the_same_whatever_others_are_in_its_step(
    small: tuple[Path, Manifest], hidden: Floats
) -> None:
    model = Model(*small, "wasm-int8")
    whole = model.run(hidden, by=POSITIONS)
    for by in (1, 5):
        np.testing.assert_allclose(model.run(hidden, by=by), whole, rtol=1e-4, atol=1e-4)
