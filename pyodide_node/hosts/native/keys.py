"""The node's identity on disk: one Ed25519 key in a file that only its owner may read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from pyodide_node.errors import StoreError
from pyodide_node.hosts.crypto import SoftwareKeys

__all__ = ["load_keys", "load_seed"]


def load_keys(path: Path) -> SoftwareKeys:
    """The key at `path` (PEM, PKCS#8), made on first use. Raises StoreError."""
    return SoftwareKeys(load_seed(path), secrets.token_bytes)


def load_seed(path: Path) -> bytes:
    """The 32 bytes of the key at `path` (PEM, PKCS#8), made on first use.

    Raises StoreError when the file is not such a key, is open to others, or cannot be made: a
    node that silently took a new identity would lose its credit and its place.
    """
    try:
        if not path.exists():
            _create(path)
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise StoreError(f"{path} can be read by others: chmod 600 it, or make a new key")
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"no key can be had from {path}: {error}", path=str(path)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise StoreError(f"{path} is not an Ed25519 key: move it away to get a new identity")
    return key.private_bytes_raw()


def _create(path: Path) -> None:
    """Write a whole file under another name, then link it: of two processes that start at once
    one wins, and neither reads half a key."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    pem = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
