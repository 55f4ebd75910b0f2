"""Locks a built model's weight files, so that only who is given its key can open them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from build.shards.blobs import Blobs, write_whole
from build.shards.builder import MANIFEST
from build.shards.source import Progress, silent
from pyodide_node.errors import ManifestError
from pyodide_node.model.locked import SEGMENT, file_numbers, key_check, segment_nonce
from pyodide_node.model.manifest import (
    Blob,
    Manifest,
    Private,
    decode_manifest,
    encode_manifest,
)

__all__ = ["lock"]


def lock(
    plain: Path,
    out: Path,
    key: bytes,
    keepers: list[bytes],
    progress: Progress = silent,
) -> Manifest:
    """Writes to `out` what `plain` holds (a manifest and its blobs), weights locked under `key`.

    `keepers` are the Ed25519 public keys of the nodes that will give the key away. `plain` stays
    as it is. Raises ManifestError for a folder that holds no model, or a private one, and
    CheckpointError for a full disk.
    """
    manifest = decode_manifest((plain / MANIFEST).read_bytes())
    if manifest.private:
        raise ManifestError("this model is private already", model=manifest.name)
    blobs = Blobs(out / "blobs")
    numbers = file_numbers(manifest)
    locked: dict[str, Blob] = {}
    for done, (sha256, number) in enumerate(numbers.items(), 1):
        locked[sha256] = blobs.put(_pieces(plain / "blobs" / sha256, key, number))
        progress("locking", done, len(numbers))
    for blob in manifest.blobs().values():
        if blob.sha256 not in numbers:
            for name in filter(None, (blob.sha256, blob.dag)):
                shutil.copyfile(plain / "blobs" / name, blobs.folder / name)
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
    write_whole(out / MANIFEST, data)
    return made


def _pieces(source: Path, key: bytes, number: int) -> Iterator[bytes]:
    cipher, segment = AESGCM(key), 0
    with source.open("rb") as file:
        while plain := file.read(SEGMENT):
            yield cipher.encrypt(segment_nonce(number, segment), plain, None)
            segment += 1
