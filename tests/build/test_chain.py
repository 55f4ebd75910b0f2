"""Spans chained in any split say what the unsplit model says, and what plain arithmetic says."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from build.shards.huggingface import Checkpoint
from pyodide_node.model.manifest import Manifest, Variant
from tests.build.oracle import Oracle, rounded
from tests.build.swarm import Chain, Shards, whole_model

VARIANTS: tuple[Variant, ...] = ("gpu-fp32", "wasm-expanded")


@pytest.fixture(scope="module")
def oracle(checkpoint: Checkpoint) -> Oracle:
    """Plain arithmetic on the rounded weights, in float64."""
    return rounded(checkpoint, 4, 4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_chain_computes_the_oracles_logits(
    shards: Path, manifest: Manifest, oracle: Oracle, variant: Variant
) -> None:
    ids = manifest.reference.prompt_ids
    vocab = manifest.vocab_size
    chain = Chain(Shards(shards, manifest, variant), (0, 3, 8))
    values, indices, total = chain.choose(chain.hidden(ids), k=vocab)
    want = oracle.logits(ids)[-1]
    got = np.empty(vocab)
    got[indices] = values
    assert np.abs(got - want).max() < 1e-4
    assert total == pytest.approx(np.log(np.exp(want).sum()), abs=1e-4)


def test_whole_model_computes_the_oracles_logits_and_ids(
    shards: Path, manifest: Manifest, oracle: Oracle
) -> None:
    reference = manifest.reference
    logits = whole_model(shards, manifest).step(reference.prompt_ids)
    assert np.abs(logits - oracle.logits(reference.prompt_ids)).max() < 1e-4
    assert oracle.greedy(reference.prompt_ids, 32) == reference.ids


def test_reference_is_reproduced(shards: Path, manifest: Manifest) -> None:
    ids, _ = whole_model(shards, manifest).greedy(manifest.reference.prompt_ids, 32)
    assert ids == manifest.reference.ids


def test_every_split_gives_the_same_ids(shards: Path, manifest: Manifest) -> None:
    """All 128 ways to cut 8 blocks, on one set of sessions."""
    folder = Shards(shards, manifest, "gpu-fp32")
    made: dict[tuple[str | int, int], object] = {}
    plain = folder.session

    def cached(kind: str | int, first: int = 0) -> object:
        if (kind, first) not in made:
            made[kind, first] = plain(kind, first)
        return made[kind, first]

    folder.session = cached  # type: ignore[method-assign]
    blocks = manifest.blocks
    for count in range(blocks):
        for cuts in combinations(range(1, blocks), count):
            chain = Chain(folder, (0, *cuts, blocks))
            got = chain.greedy(manifest.reference.prompt_ids, 8)
            assert got == manifest.reference.ids[:8], cuts


@pytest.mark.parametrize("cuts", [(0, 8), (0, 4, 8), tuple(range(9))])
def test_expanded_graphs_give_the_same_ids(
    shards: Path, manifest: Manifest, cuts: tuple[int, ...]
) -> None:
    chain = Chain(Shards(shards, manifest, "wasm-expanded"), cuts)
    assert chain.greedy(manifest.reference.prompt_ids, 32) == manifest.reference.ids


def test_temperature_divides_the_logits(shards: Path, manifest: Manifest) -> None:
    chain = Chain(Shards(shards, manifest, "gpu-fp32"), (0, 8))
    hidden = chain.hidden([0, 5, 9])
    plain, order, _ = chain.choose(hidden, k=manifest.vocab_size)
    cool, same, total = chain.choose(hidden, k=5, temperature=0.01)
    assert list(same) == list(order[:5])
    assert np.allclose(cool, plain[:5] / np.float32(0.01), rtol=1e-5)
    # Far beyond what exp() could hold: the sum is taken relative to the largest.
    assert np.isfinite(total)
    assert total >= cool[0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_equal_logits_come_lowest_id_first(
    shards: Path, manifest: Manifest, variant: Variant
) -> None:
    chain = Chain(Shards(shards, manifest, variant), (0, 8))
    nothing = np.zeros((1, 1, manifest.hidden_size), np.float32)
    values, indices, _ = chain.choose(nothing, k=40)
    assert not values.any()
    assert list(indices) == list(range(40))


def test_cache_longer_than_what_is_valid_is_free_room(shards: Path, manifest: Manifest) -> None:
    """A rewind is a smaller `seqlens_k`: what lies behind it in the cache does not count."""
    run = Shards(shards, manifest, "gpu-fp32").session(8)
    draw = np.random.default_rng(3)
    hidden = draw.standard_normal((1, 6, manifest.hidden_size)).astype(np.float32)

    def step(new: np.ndarray, end: int, past: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        feeds = {
            "hidden_in": new,
            "seqlens_k": np.array([end - 1], np.int32),
            "total_sequence_length": np.array(end, np.int32),
            **past,
        }
        return dict(zip([o.name for o in run.get_outputs()], run.run(None, feeds), strict=True))

    def caches(length: int, fill: float) -> dict[str, np.ndarray]:
        shape = (1, manifest.kv_heads, length, manifest.head_dim)
        names = [f"past_{k}_{x}" for k in range(manifest.blocks) for x in ("key", "value")]
        return {name: np.full(shape, fill, np.float32) for name in names}

    want = step(hidden, 6, caches(0, 0.0))["hidden_out"]
    first = step(hidden[:, :4], 4, caches(0, 0.0))
    roomy = caches(16, 1e9)
    for name, cache in roomy.items():
        cache[:, :, :4] = first[name.replace("past", "present")]
    got = step(hidden[:, 4:], 6, roomy)
    assert np.abs(got["hidden_out"] - want[:, 4:]).max() < 1e-5
