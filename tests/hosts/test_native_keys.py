"""The key file of the native host."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pyodide_node.errors import StoreError
from pyodide_node.hosts.native import load_keys


def test_only_the_owner_can_read_the_key(tmp_path: Path) -> None:
    path = tmp_path / "state" / "identity.pem"
    load_keys(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_key_open_to_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "identity.pem"
    load_keys(path)
    path.chmod(0o640)
    with pytest.raises(StoreError, match="chmod 600"):
        load_keys(path)


async def test_nodes_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    path = tmp_path / "identity.pem"
    keys = await asyncio.gather(*(asyncio.to_thread(load_keys, path) for _ in range(8)))
    assert len({key.public_key for key in keys}) == 1


@pytest.mark.parametrize("content", [b"", b"not a key", b"\xff" * 100])
def test_a_damaged_key_is_not_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "identity.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(StoreError):
        load_keys(path)
    assert path.read_bytes() == content


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "identity.pem"
    other = X25519PrivateKey.generate()
    path.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    with pytest.raises(StoreError, match="Ed25519"):
        load_keys(path)


def test_a_state_folder_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError):
        load_keys(tmp_path / "file" / "identity.pem")
