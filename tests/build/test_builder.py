"""Building twice gives the same bytes; building what is there does nothing; bad input says why."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from build.shards.__main__ import main
from build.shards.builder import build
from build.shards.huggingface import Checkpoint
from build.shards.source import CheckpointError
from pyodide_node.model.manifest import decode_manifest
from tests.build.conftest import write_checkpoint


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_same_checkpoint_gives_the_same_bytes(
    checkpoint: Checkpoint, shards: Path, tmp_path: Path
) -> None:
    copy = Checkpoint(write_checkpoint(tmp_path / "again"))
    built = build(copy, tmp_path / "out", "tiny")
    assert built.fresh
    assert contents(tmp_path / "out") == contents(shards)


def test_files_are_those_the_manifest_pins(shards: Path) -> None:
    manifest = decode_manifest((shards / "manifest.json").read_bytes())
    names = {path.name for path in (shards / "blobs").iterdir()}
    assert names == set(manifest.blobs())
    for digest, blob in manifest.blobs().items():
        data = (shards / "blobs" / digest).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (blob.sha256, blob.bytes)


def test_a_second_run_touches_nothing(checkpoint: Checkpoint, shards: Path) -> None:
    before = stamps(shards)
    assert not build(checkpoint, shards, "tiny").fresh
    assert stamps(shards) == before


def test_a_lost_or_broken_file_is_made_again(checkpoint: Checkpoint, tmp_path: Path) -> None:
    first = build(checkpoint, tmp_path, "tiny").manifest
    lost, short = first.layers[2].sha256, first.layers[5].sha256
    (tmp_path / "blobs" / lost).unlink()
    (tmp_path / "blobs" / short).write_bytes(b"cut")
    again = build(checkpoint, tmp_path, "tiny")
    assert again.fresh
    assert again.manifest == first
    assert (tmp_path / "blobs" / lost).stat().st_size == first.layers[2].bytes
    assert (tmp_path / "blobs" / short).stat().st_size == first.layers[5].bytes


@pytest.mark.parametrize("text", ["", "{}", "[]", "not json"])
def test_a_broken_manifest_or_receipt_is_made_again(
    checkpoint: Checkpoint, tmp_path: Path, text: str
) -> None:
    build(checkpoint, tmp_path, "tiny")
    (tmp_path / "manifest.json").write_text(text)
    assert build(checkpoint, tmp_path, "tiny").fresh
    (tmp_path / "built-from.json").write_text(text)
    assert build(checkpoint, tmp_path, "tiny").fresh


def test_another_checkpoint_replaces_the_old_files(tmp_path: Path) -> None:
    out = tmp_path / "out"
    one = build(Checkpoint(write_checkpoint(tmp_path / "one", seed=1)), out, "tiny").manifest
    two = build(Checkpoint(write_checkpoint(tmp_path / "two", seed=2)), out, "tiny").manifest
    assert one.model_id != two.model_id
    assert {path.name for path in (out / "blobs").iterdir()} == set(two.blobs())


def test_context_caps_the_rotary_table(checkpoint: Checkpoint, tmp_path: Path) -> None:
    capped = Checkpoint(checkpoint.folder, context_length=64)
    manifest = build(capped, tmp_path, "tiny").manifest
    assert manifest.context_length == 64
    assert manifest.rope.bytes == 2 * 64 * 8 * 4


def test_a_context_that_holds_no_reference_is_said_so(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint", max_position_embeddings=40)
    with pytest.raises(CheckpointError, match="more positions"):
        build(Checkpoint(folder), tmp_path / "out", "tiny")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_wants_a_licence(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint")
    (folder / "MODEL_CARD.md").write_text("# No front matter\n")
    with pytest.raises(CheckpointError, match="--license"):
        build(Checkpoint(folder), tmp_path / "out", "tiny")
    made = build(Checkpoint(folder), tmp_path / "out", "tiny", license="0BSD")
    assert made.manifest.license == "0BSD"


def test_command_builds_and_says_so(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [str(checkpoint.folder), str(tmp_path), "--name", "tiny"]
    assert main(argv) == 0
    assert "built tiny: 8 blocks" in capsys.readouterr().err
    assert main(argv) == 0
    assert "already built" in capsys.readouterr().err
    assert json.loads((tmp_path / "manifest.json").read_bytes())["name"] == "tiny"


def test_command_fails_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), str(tmp_path / "out")]) == 1
    assert "config.json" in capsys.readouterr().err


def test_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert "CHECKPOINT_DIR" in capsys.readouterr().out
