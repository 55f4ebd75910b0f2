"""A build that is cut off anywhere goes on where it was, to the same bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from build.shards import builder
from build.shards.builder import build
from build.shards.huggingface import Checkpoint
from build.shards.quantise import Floats
from build.shards.source import CheckpointError
from pyodide_node.model.manifest import Manifest
from tests.build.conftest import BLOCKS
from tests.build.test_blobs import SmallDisk


class CutError(Exception):
    """The power goes."""


class Counted(Checkpoint):
    """Notes which layers' matrices are read, and stops at one."""

    stop_at: str | None = None
    read: set[str]

    def rows(self, name: str, first: int, last: int) -> Floats:
        if name == self.stop_at:
            raise CutError
        if name.startswith("model.layers."):
            self.read.add(name.split(".")[2])
        return super().rows(name, first, last)


def counted(checkpoint: Checkpoint, stop_at: str | None = None) -> Counted:
    source = Counted(checkpoint.folder)
    source.stop_at, source.read = stop_at, set()
    return source


def files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_goes_on_with_the_first_layer_that_is_not_done(
    checkpoint: Checkpoint, shards: Path, tmp_path: Path
) -> None:
    with pytest.raises(CutError):
        build(counted(checkpoint, "model.layers.5.mlp.up_proj.weight"), tmp_path, "tiny")
    again = counted(checkpoint)
    seen: list[tuple[str, int, int]] = []
    built = build(again, tmp_path, "tiny", progress=lambda *step: seen.append(step))
    assert built.fresh
    assert again.read == {str(layer) for layer in range(5, BLOCKS)}
    assert files(tmp_path) == files(shards)
    done = [step[1] for step in seen if step[0] != "reading"]
    assert done == sorted(done)
    assert seen[-1][1] == seen[-1][2]


def test_other_bits_do_not_go_on_with_what_was_begun(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(CutError):
        build(counted(checkpoint, "model.layers.5.mlp.up_proj.weight"), tmp_path, "tiny")
    again = counted(checkpoint)
    manifest = build(again, tmp_path, "tiny", bits=8).manifest
    assert again.read == {str(layer) for layer in range(BLOCKS)}
    wanted = set(manifest.blobs()) | {b.dag for b in manifest.blobs().values() if b.dag}
    assert {path.name for path in (tmp_path / "blobs").iterdir()} == wanted


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_disk_that_fills_midway_costs_no_finished_layer(
    checkpoint: Checkpoint,
    shards: Path,
    manifest: Manifest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: float,
) -> None:
    every = manifest.blobs().values()
    room = int(part * sum(blob.bytes for blob in every))
    with monkeypatch.context() as patch:
        patch.setattr(builder, "Blobs", SmallDisk)
        patch.setattr(SmallDisk, "room", room)
        with pytest.raises(CheckpointError, match="run the same command again"):
            build(checkpoint, tmp_path, "tiny")
    assert not (tmp_path / "manifest.json").exists()
    again = counted(checkpoint)
    build(again, tmp_path, "tiny")
    whole_layers = min(BLOCKS, (room - manifest.embed.bytes) // manifest.layers[0].bytes)
    assert len(again.read) == BLOCKS - max(0, whole_layers)
    assert files(tmp_path) == files(shards)
