"""What an unfinished build has made already: a later run goes on from there."""

from __future__ import annotations

from pathlib import Path

import msgspec

from build.shards.blobs import Blobs, write_whole
from pyodide_node.model.manifest import Blob

__all__ = ["Ledger"]


class _Kept(msgspec.Struct):
    inputs: str
    done: dict[str, Blob]


class Ledger:
    """A file that names the blobs made so far, by what they are.

    It counts only for the same `inputs` (a hash of what the build is made from), and only blobs
    that are still there, with the bytes they had.
    """

    def __init__(self, path: Path, inputs: str, blobs: Blobs) -> None:
        self._path = path
        self._inputs = inputs
        self._done: dict[str, Blob] = {}
        try:
            kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
        except (OSError, msgspec.DecodeError):
            return
        if kept.inputs == inputs:
            self._done = {name: blob for name, blob in kept.done.items() if blobs.verify(blob)}

    def find(self, name: str) -> Blob | None:
        return self._done.get(name)

    def add(self, name: str, blob: Blob) -> None:
        self._done[name] = blob
        write_whole(self._path, msgspec.json.encode(_Kept(inputs=self._inputs, done=self._done)))

    def close(self) -> None:
        """The build is finished."""
        self._path.unlink(missing_ok=True)
