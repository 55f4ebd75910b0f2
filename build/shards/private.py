"""Locks a built model's weight files, so that only who is given its key can open them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pyodide_node.errors import ManifestError
from pyodide_node.model.locked import SEGMENT, file_numbers, key_check, segment_nonce
from pyodide_node.model.manifest import (
    PIECE,
    Blob,
    Manifest,
    Private,
    decode_manifest,
    encode_manifest,
)
from pyodide_node.model.pieces import dag_root

__all__ = ["lock"]

Progress = Callable[[str, int, int], None]


def lock(
    plain: Path,
    out: Path,
    key: bytes,
    keepers: list[bytes],
    progress: Progress = lambda _what, _done, _of: None,
) -> Manifest:
    """Writes to `out` what `plain` holds (a manifest and its blobs), weights locked under `key`.

    `keepers` are the Ed25519 public keys of the nodes that will give the key away. `plain` stays
    as it is. Raises ManifestError for a folder that holds no model, or a private one.
    """
    manifest = decode_manifest((plain / "manifest.json").read_bytes())
    if manifest.private:
        raise ManifestError("this model is private already", model=manifest.name)
    blobs = out / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    numbers = file_numbers(manifest)
    locked: dict[str, Blob] = {}
    for done, (sha256, number) in enumerate(numbers.items(), 1):
        locked[sha256] = _lock(plain / "blobs" / sha256, blobs, key, number)
        progress("locking", done, len(numbers))
    for blob in manifest.blobs().values():
        if blob.sha256 not in numbers:
            for name in filter(None, (blob.sha256, blob.dag)):
                shutil.copyfile(plain / "blobs" / name, blobs / name)
    private = Private(keepers=[one.hex() for one in keepers], key_check=key_check(key))
    made = msgspec.structs.replace(
        manifest,
        embed=locked[manifest.embed.sha256],
        head=locked[manifest.head.sha256],
        layers=[locked[layer.sha256] for layer in manifest.layers],
        private=private,
    )
    data = encode_manifest(made)
    decode_manifest(data)
    (out / "manifest.json").write_bytes(data)
    return made


def _lock(source: Path, blobs: Path, key: bytes, number: int) -> Blob:
    """One file, a segment at a time."""
    draft = blobs / f"{source.name}.part"
    whole, pieces, size = hashlib.sha256(), [], 0
    with draft.open("wb") as file:
        for piece in _pieces(source, key, number):
            whole.update(piece)
            pieces.append(hashlib.sha256(piece).digest())
            size += file.write(piece)
    sha256 = whole.hexdigest()
    draft.replace(blobs / sha256)
    if size <= PIECE:
        return Blob(sha256=sha256, bytes=size)
    root = dag_root(pieces, size)
    dag = hashlib.sha256(root).hexdigest()
    (blobs / dag).write_bytes(root)
    return Blob(sha256=sha256, bytes=size, dag=dag)


def _pieces(source: Path, key: bytes, number: int) -> Iterator[bytes]:
    cipher, segment = AESGCM(key), 0
    with source.open("rb") as file:
        while plain := file.read(SEGMENT):
            yield cipher.encrypt(segment_nonce(number, segment), plain, None)
            segment += 1
