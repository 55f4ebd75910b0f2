"""Files on their way to the disk: hashed as they pass, named when whole, and a disk that fills."""

from __future__ import annotations

import errno
import hashlib
import io
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from build.shards.blobs import Blobs, BlobWriter
from build.shards.ledger import Ledger
from build.shards.source import CheckpointError
from pyodide_node.model.manifest import PIECE
from pyodide_node.model.pieces import describe


@given(st.lists(st.integers(0, PIECE + 3), max_size=5))
def test_any_chunks_describe_the_file_as_its_bytes_do(sizes: list[int]) -> None:
    data = bytes(range(251)) * (sum(sizes) // 251 + 1)
    writer = BlobWriter(io.BytesIO())
    at = 0
    for size in sizes:
        writer.write(memoryview(data)[at : at + size])
        at += size
    if at:
        assert writer.describe() == describe(data[:at])


@pytest.mark.parametrize("size", [1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
def test_a_file_lies_under_its_hash_with_its_pieces_beside_it(tmp_path: Path, size: int) -> None:
    blobs = Blobs(tmp_path)
    data = bytes(range(256)) * (size // 256 + 1)
    blob = blobs.put([data[:size]])
    wanted, root = describe(data[:size])
    assert blob == wanted
    assert blobs.read(blob) == data[:size]
    assert blobs.has(blob)
    names = {blob.sha256} | ({blob.dag} if blob.dag else set())
    assert {path.name for path in tmp_path.iterdir()} == names
    if blob.dag:
        assert (tmp_path / blob.dag).read_bytes() == root
        (tmp_path / blob.dag).unlink()
        assert not blobs.has(blob)


def test_what_a_killed_build_left_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / "1234.part").write_bytes(b"half")
    Blobs(tmp_path)
    assert not list(tmp_path.iterdir())


class SmallDisk(Blobs):
    """Room for so many bytes, over all its files."""

    room = 0

    def open(self, path: Path) -> BinaryIO:
        disk = self

        class File(io.FileIO):
            def write(self, data: object) -> int:
                size = memoryview(data).nbytes  # type: ignore[arg-type]
                if size > disk.room:
                    raise OSError(errno.ENOSPC, "No space left on device")
                disk.room -= size
                return super().write(data)  # type: ignore[arg-type]

        return File(path, "wb")  # type: ignore[return-value]


def test_a_full_disk_says_what_to_do_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path)
    disk.room = 1000
    disk.put([b"a" * 600])
    with pytest.raises(CheckpointError, match="full: make room"):
        disk.put([b"b" * 300, b"b" * 300])
    assert [path.name for path in tmp_path.iterdir()] == [hashlib.sha256(b"a" * 600).hexdigest()]


def test_other_troubles_of_a_disk_are_told_too(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CheckpointError, match="cannot be written"):
        Blobs(tmp_path / "file" / "blobs")


def test_a_file_too_large_for_any_tab_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("build.shards.blobs.MAX_BLOB_BYTES", 100)
    with pytest.raises(CheckpointError, match="fewer bits"):
        Blobs(tmp_path).put([bytes(101)])
    assert not list(tmp_path.iterdir())


def test_a_ledger_counts_for_the_same_inputs_and_files_that_are_there(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    one, two, three = (blobs.put([word]) for word in (b"one", b"two", b"three"))
    path = tmp_path / "ledger"
    ledger = Ledger(path, "inputs", blobs)
    ledger.add("first", one)
    ledger.add("second", two)
    ledger.add("third", three)
    (blobs.folder / two.sha256).write_bytes(b"tw")
    (blobs.folder / three.sha256).write_bytes(bytes(5))
    again = Ledger(path, "inputs", blobs)
    assert again.find("first") == one
    assert again.find("second") is None
    assert again.find("third") is None
    assert Ledger(path, "others", blobs).find("first") is None
    again.close()
    assert not path.exists()


@pytest.mark.parametrize("text", [b"", b"[]", b"\xff", b'{"inputs":"inputs","done":{"first":1}}'])
def test_a_broken_ledger_is_begun_anew(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "ledger"
    path.write_bytes(text)
    blobs = Blobs(tmp_path / "blobs")
    ledger = Ledger(path, "inputs", blobs)
    assert ledger.find("first") is None
    ledger.add("first", blobs.put([b"one"]))
    assert Ledger(path, "inputs", blobs).find("first") == ledger.find("first") is not None
