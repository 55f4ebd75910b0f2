"""The reference of a model too big to run whole: one layer at a time says the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from build.shards.blobs import Blobs
from build.shards.builder import build
from build.shards.huggingface import Checkpoint
from build.shards.reference import SAFE_MARGIN, first_ids
from pyodide_node.inference.manifest import Manifest
from tests.build.conftest import FAMILIES, write_checkpoint
from tests.build.swarm import whole_model


def test_one_layer_at_a_time_chooses_as_the_whole(shards: Path, manifest: Manifest) -> None:
    prompts = [[0, 5, 9, 200], [0, 17], manifest.reference.prompt_ids]
    read: list[int] = []
    blobs = Blobs(shards / "blobs")
    found = first_ids(manifest, blobs, prompts, lambda _what, size: read.append(size))
    whole = whole_model(shards, manifest)
    for prompt, (best, margin) in zip(prompts, found, strict=True):
        ids, want = whole.greedy(prompt, 1)
        assert [best] == ids
        assert margin == pytest.approx(want, abs=1e-4)
    assert len(read) == manifest.blocks + 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_big_model_gets_a_reference_of_one_id(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Checkpoint(write_checkpoint(tmp_path / "checkpoint", family=family))
    monkeypatch.setattr("build.shards.reference.WHOLE_BYTES", 0)
    manifest = build(source, tmp_path / "big", family).manifest
    reference = manifest.reference
    ids, margin = whole_model(tmp_path / "big", manifest).greedy(reference.prompt_ids, 1)
    assert reference.ids == ids
    assert margin > SAFE_MARGIN
