"""The small files beside the weights, read without trusting their names or sizes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from build.shards.source import CheckpointError, Progress

__all__ = ["hash_files", "inside", "parse_json", "read_small"]

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}\Z")
_T = TypeVar("_T")

_CHUNK = 1 << 22


def inside(folder: Path, name: str) -> Path:
    """The regular file of this name in `folder`; it may lie in a cache of the Hugging Face hub,
    whose folders hold links to `../../blobs`, and nowhere else outside.

    Raises `CheckpointError`.
    """
    if not _PLAIN.match(name):
        raise CheckpointError(f"{name[:200]!r} is not the name of a file in {folder}")
    path = folder / name
    try:
        home, real = folder.resolve(strict=True), path.resolve(strict=True)
    except FileNotFoundError:
        raise CheckpointError(f"{folder} has no {name}") from None
    except (OSError, RuntimeError) as error:  # a loop of links
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    hub = home.parent.name == "snapshots" and real.parent == home.parent.parent / "blobs"
    if real.parent != home and not hub:
        raise CheckpointError(
            f"{path} is a link to {real}, outside its folder: copy the file there"
        )
    if not real.is_file():
        raise CheckpointError(f"{path} is not a regular file")
    return real


def read_small(folder: Path, name: str, most: int) -> bytes | None:
    """The bytes of a file in `folder`, None where there is none; at most `most` of them."""
    if not (folder / name).is_symlink() and not (folder / name).exists():
        return None
    path = inside(folder, name)
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    if len(data) > most:
        raise CheckpointError(f"{name} is larger than {most} bytes: this is not a plausible one")
    return data


def parse_json(name: str, data: bytes, kind: type[_T]) -> _T:
    """JSON of the given form; `CheckpointError` names the file and what is off."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise CheckpointError(f"{name}: {error}") from None


def hash_files(paths: Sequence[Path], progress: Progress) -> list[str]:
    """sha256 of each file, in hex; `progress` is told bytes."""
    hashes, done = [], 0
    buffer = memoryview(bytearray(_CHUNK))
    try:
        total = sum(path.stat().st_size for path in paths)
        for path in paths:
            sha256 = hashlib.sha256()
            with path.open("rb", buffering=0) as file:
                while count := file.readinto(buffer):
                    sha256.update(buffer[:count])
                    done += count
                    progress("reading", done, total)
            hashes.append(sha256.hexdigest())
    except OSError as error:
        raise CheckpointError(f"a file cannot be read: {error}") from None
    return hashes
