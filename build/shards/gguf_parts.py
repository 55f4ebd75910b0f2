"""A GGUF file that llama-gguf-split cut: metadata in the first part, tensors in all."""

from __future__ import annotations

import re
from pathlib import Path

from build.shards.gguf_header import Header, TensorInfo, read_header
from build.shards.small_files import inside
from build.shards.source import CheckpointError

__all__ = ["read_parts"]

MAX_PARTS = 1000

_NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf\Z", re.ASCII)


def read_parts(path: Path) -> tuple[Header, list[Path]]:
    """The head of a GGUF file, of all its parts together, and these in order.

    `path` is the whole file or the first part; the others lie beside it. Raises `CheckpointError`.
    """
    first = read_header(path)
    count = first.get("split.count", int) or 1
    if count == 1:
        return first, [path]
    named = _NAME.match(path.name)
    if count > MAX_PARTS or named is None or int(named[3]) != count:
        raise CheckpointError(f"{path.name}: it is of {count} parts, and not named as one of them")
    if first.get("split.no", int) != 0 or int(named[2]) != 1:
        raise CheckpointError(
            f"{path.name} is not the first of {count} parts: give {_part(named[1], 1, count)}"
        )
    tensors: dict[str, TensorInfo] = dict(first.tensors)
    paths = [path]
    for number in range(2, count + 1):
        part = inside(path.parent, _part(named[1], number, count))
        head = read_header(part)
        if head.get("split.no", int) != number - 1 or head.get("split.count", int) != count:
            raise CheckpointError(f"{part.name} is a part of another file")
        if tensors.keys() & head.tensors.keys():
            raise CheckpointError(f"{part.name} has a tensor that an earlier part has too")
        tensors |= head.tensors
        paths.append(part)
    return Header(first.metadata, tensors), paths


def _part(stem: str, number: int, count: int) -> str:
    return f"{stem}-{number:05}-of-{count:05}.gguf"
