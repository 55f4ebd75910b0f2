"""Every family in every number of bits: pieces of every variant say what the unsplit model says,
and that says what plain arithmetic says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from build.shards.builder import build
from build.shards.huggingface import Checkpoint
from build.shards.source import Bits, CheckpointError, Source
from build.shards.weights import check_blocks, ends_bits
from pyodide_node.model.manifest import Manifest, Variant
from tests.build.conftest import FAMILIES, write_checkpoint
from tests.build.oracle import rounded
from tests.build.swarm import Chain, Shards, whole_model

CUTS = (0, 3, 8)
EXACT: tuple[Variant, ...] = ("gpu-fp32", "wasm-expanded")
ANSWER = 12
"""Ids; the float64 oracle computes every one from the beginning."""


@dataclass
class Model:
    source: Source
    folder: Path
    manifest: Manifest


@pytest.fixture(
    scope="module", params=[(f, b) for f in FAMILIES for b in (4, 8, 16, 32)],
    ids=lambda of: f"{of[0]}-{of[1]}",
)  # fmt: skip
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    family, bits = request.param
    folder = tmp_path_factory.mktemp(family)
    source = Checkpoint(write_checkpoint(folder / "checkpoint", family=family))
    return Model(source, folder, build(source, folder, family, bits=bits).manifest)


def test_says_what_it_is(model: Model) -> None:
    manifest, shape = model.manifest, model.source.shape
    assert manifest.architecture == shape.architecture
    assert manifest.ends_bits == manifest.bits
    assert (manifest.embed == manifest.head) == shape.tied


def test_unsplit_model_computes_the_oracles_logits_and_ids(model: Model) -> None:
    manifest, reference = model.manifest, model.manifest.reference
    oracle = rounded(model.source, manifest.bits, manifest.ends_bits)
    logits = whole_model(model.folder, manifest).step(reference.prompt_ids)
    assert np.abs(logits - oracle.logits(reference.prompt_ids)).max() < 1e-4
    assert oracle.greedy(reference.prompt_ids, ANSWER) == reference.ids[:ANSWER]


@pytest.mark.parametrize("variant", EXACT)
def test_pieces_answer_as_the_unsplit_model(model: Model, variant: Variant) -> None:
    manifest = model.manifest
    chain = Chain(Shards(model.folder, manifest, variant), CUTS)
    assert chain.greedy(manifest.reference.prompt_ids, 32) == manifest.reference.ids


def test_half_precision_stays_near(model: Model) -> None:
    manifest = model.manifest
    ids = manifest.reference.prompt_ids

    def logits(variant: Variant) -> np.ndarray:
        chain = Chain(Shards(model.folder, manifest, variant), CUTS)
        # Two steps, so that what the cache keeps counts.
        chain.hidden(ids[:-1])
        values, indices, _ = chain.choose(chain.hidden(ids[-1:]), k=manifest.vocab_size)
        return np.asarray(values[np.argsort(indices)])

    single, half = logits("gpu-fp32"), logits("gpu-fp16")
    assert half.dtype == np.float32
    assert 0 < np.abs(half - single).max() < 0.01 * np.abs(single).max()


@pytest.mark.parametrize(
    ("vocab", "hidden", "tied", "bits", "ends"),
    [
        (2048, 192, True, 4, 4),
        (128_256, 4096, False, 4, 4),
        (128_256, 2048, True, 8, 8),
        (128_256, 4096, False, 8, 4),
        (32_000, 4096, False, 8, 8),
        (128_256, 4096, False, 16, 16),
        (2048, 192, True, 32, 32),
    ],
)
def test_ends_are_as_wide_as_blocks_where_an_asker_can_hold_them(
    checkpoint: Checkpoint, vocab: int, hidden: int, tied: bool, bits: Bits, ends: Bits
) -> None:
    shape = replace(checkpoint.shape, vocab_size=vocab, hidden_size=hidden, tied=tied)
    assert ends_bits(shape, bits) == ends


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_narrower_ends_answer_the_same(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("build.shards.weights.MOST_ENDS_BYTES", 0)
    source = Checkpoint(write_checkpoint(tmp_path / "checkpoint", family=family))
    manifest = build(source, tmp_path, family, bits=8).manifest
    assert manifest.ends_bits == 4
    reference = manifest.reference
    assert rounded(source, 8, 4).greedy(reference.prompt_ids, ANSWER) == reference.ids[:ANSWER]
    for variant in EXACT:
        chain = Chain(Shards(tmp_path, manifest, variant), CUTS)
        assert chain.greedy(reference.prompt_ids, 32) == reference.ids


@pytest.mark.parametrize("bits", [4, 8])
def test_sizes_that_are_no_whole_blocks_want_16_bits(checkpoint: Checkpoint, bits: Bits) -> None:
    odd = replace(checkpoint.shape, intermediate_size=100)
    with pytest.raises(CheckpointError, match=r"intermediate_size is 100.*--bits 16"):
        check_blocks(odd, bits)
    narrow = replace(checkpoint.shape, heads=6, kv_heads=2, head_dim=8)
    with pytest.raises(CheckpointError, match=r"heads x head_dim is 48.*--bits 16"):
        check_blocks(narrow, bits)
    check_blocks(odd, 16)
    check_blocks(narrow, 32)
    check_blocks(checkpoint.shape, bits)


@pytest.mark.parametrize("bits", [16, 32])
def test_other_sizes_are_served_unquantised(bits: Bits, tmp_path: Path) -> None:
    source = Checkpoint(write_checkpoint(tmp_path / "checkpoint", inter=100))
    manifest = build(source, tmp_path, "odd", bits=bits).manifest
    reference = manifest.reference
    assert (
        rounded(source, bits, bits).greedy(reference.prompt_ids, ANSWER) == reference.ids[:ANSWER]
    )
    for variant in EXACT:
        chain = Chain(Shards(tmp_path, manifest, variant), CUTS)
        assert chain.greedy(reference.prompt_ids, 32) == reference.ids
