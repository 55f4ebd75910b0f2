"""Locked weight files: the format in which a private model's files are stored and passed on.

A file is AES-256-GCM in segments under the model's key: each piece of the file is one segment and
its tag, so that pieces are checked, stored and passed on by those who cannot open them. The files
of a model are numbered, and so are the segments of a file: no nonce is used twice under one key.
"""

from __future__ import annotations

import hashlib
from typing import Final

from pyodide_node.model.manifest import PIECE, Manifest

__all__ = ["KEY_BYTES", "SEGMENT", "TAG", "file_numbers", "key_check", "segment_nonce"]

KEY_BYTES: Final = 32
TAG: Final = 16
SEGMENT: Final = PIECE - TAG
"""Plain bytes of one piece."""


def key_check(key: bytes) -> str:
    """What the manifest says of its key, so that a wrong one is told at once."""
    return hashlib.sha256(b"kwaainet/model-key/1\0" + key).hexdigest()


def segment_nonce(file: int, segment: int) -> bytes:
    """12 bytes."""
    return file.to_bytes(4, "big") + segment.to_bytes(8, "big")


def file_numbers(manifest: Manifest) -> dict[str, int]:
    """The locked files' hashes and numbers; one that serves twice has the first."""
    numbers: dict[str, int] = {}
    for number, blob in enumerate((manifest.embed, manifest.head, *manifest.layers)):
        numbers.setdefault(blob.sha256, number)
    return numbers
