"""The folder of content-addressed files, written while they are made.

A file's hash, and those of its pieces, are taken on the way to the disk, so that a file of any size
costs no memory. What is under a hash's name is whole: it gets the name last.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from build.shards.source import CheckpointError
from pyodide_node.model.manifest import MAX_BLOB_BYTES, PIECE, Blob
from pyodide_node.model.pieces import dag_root

__all__ = ["BlobWriter", "Blobs", "write_whole"]

_FULL = {errno.ENOSPC, errno.EDQUOT}

Chunk = bytes | memoryview


class BlobWriter:
    """A file on its way: `write` it in order, then `Blobs` names it by its hash."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._whole = hashlib.sha256()
        self._piece = hashlib.sha256()
        self._digests: list[bytes] = []
        self.size = 0
        """Bytes so far."""

    def write(self, chunk: Chunk) -> None:
        view = memoryview(chunk)
        self._file.write(view)
        self._whole.update(view)
        while view:
            part = view[: PIECE - self.size % PIECE]
            self._piece.update(part)
            self.size += len(part)
            view = view[len(part) :]
            if self.size % PIECE == 0:
                self._next_piece()

    def pad_to(self, offset: int) -> None:
        """Zeros up to `offset`."""
        self.write(bytes(offset - self.size))

    def describe(self) -> tuple[Blob, bytes | None]:
        """The finished file's blob, and its root block if it has more than one piece."""
        if self.size % PIECE:
            self._next_piece()
        sha256 = self._whole.hexdigest()
        if self.size <= PIECE:
            return Blob(sha256=sha256, bytes=self.size), None
        root = dag_root(self._digests, self.size)
        return Blob(sha256=sha256, bytes=self.size, dag=hashlib.sha256(root).hexdigest()), root

    def _next_piece(self) -> None:
        self._digests.append(self._piece.digest())
        self._piece = hashlib.sha256()


class Blobs:
    """`folder/<sha256>`. Every method that writes raises `CheckpointError` for a full disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with _disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob("*.part"):
                left.unlink()

    def open(self, path: Path) -> BinaryIO:
        """The file that a blob is written to before it has its name."""
        return path.open("wb")

    def put(self, chunks: Iterator[Chunk] | list[bytes]) -> Blob:
        """Writes a file, chunk by chunk as they are made."""
        partial = self.folder / f"{os.getpid()}.part"
        try:
            with _disk(self.folder), self.open(partial) as file:
                writer = BlobWriter(file)
                for chunk in chunks:
                    writer.write(chunk)
            blob, root = writer.describe()
            if blob.bytes > MAX_BLOB_BYTES:
                raise CheckpointError(
                    f"a file of {blob.bytes / 1e9:.1f} GB fits in no tab: build with fewer bits"
                )
            if not self._has(blob.sha256, blob.bytes):
                partial.replace(self.folder / blob.sha256)
            if root is not None:
                self.put([root])
            return blob
        finally:
            partial.unlink(missing_ok=True)

    def has(self, blob: Blob) -> bool:
        """Whether the file is there, with the list of its pieces; by their sizes."""
        pieces = blob.dag is None or (self.folder / blob.dag).is_file()
        return pieces and self._has(blob.sha256, blob.bytes)

    def verify(self, blob: Blob) -> bool:
        """Whether the file is there and has its hash: after a power cut its size is not enough."""
        if not self.has(blob):
            return False
        with (self.folder / blob.sha256).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == blob.sha256

    def read(self, blob: Blob) -> bytes:
        return (self.folder / blob.sha256).read_bytes()

    def keep_only(self, blobs: dict[str, Blob]) -> None:
        """Removes every other file."""
        named = set(blobs) | {blob.dag for blob in blobs.values() if blob.dag}
        for path in self.folder.iterdir():
            if path.name not in named:
                path.unlink()

    def _has(self, name: str, size: int) -> bool:
        path = self.folder / name
        return path.is_file() and path.stat().st_size == size


def write_whole(path: Path, data: bytes) -> None:
    """Whole or not at all: a reader never sees half a file."""
    partial = path.with_name(path.name + ".part")
    with _disk(path.parent):
        partial.write_bytes(data)
        partial.replace(path)


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise CheckpointError(
                f"the disk of {folder} is full: make room, and run the same command again; it"
                " goes on with the layers that are done"
            ) from error
        raise CheckpointError(f"{folder} cannot be written: {error}") from error
