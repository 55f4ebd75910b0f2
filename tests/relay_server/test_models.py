"""Models are found by name, pinned by hash, and fetched in whole or in part."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pyodide_node.errors import ConfigError
from pyodide_node.model.publisher import sign_manifest
from relay_server import Relay, RelaySettings
from tests.relay_server.http import get
from tests.wire.keys import keys_of

BLOB = bytes(range(256)) * 100
BLOB_HASH = hashlib.sha256(BLOB).hexdigest()
MANIFEST = json.dumps(
    {
        "blocks": 2,
        "license": "mit",
        "layers": [{"bytes": 100}, {"bytes": 200}],
        "embed": {"bytes": 30},
        "head": {"bytes": 40},
        "tokenizer": {"bytes": 5},
        "rope": {"bytes": 6},
    }
).encode()


def add(shelf: Path, name: str, manifest: bytes = MANIFEST) -> Path:
    folder = shelf / name
    (folder / "blobs").mkdir(parents=True)
    (folder / "manifest.json").write_bytes(manifest)
    (folder / "blobs" / BLOB_HASH).write_bytes(BLOB)
    return folder


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    shelf = tmp_path / "models"
    add(shelf, "small")
    (tmp_path / "secret").write_text("secret")
    return shelf


@pytest.fixture
async def url(shelf: Path) -> AsyncIterator[str]:
    async with Relay(RelaySettings(port=0, stun=False, models=shelf)) as relay:
        yield relay.url


def entry(name: str, manifest: bytes = MANIFEST) -> dict[str, object]:
    return {
        "name": name,
        "id": hashlib.sha256(manifest).hexdigest(),
        "blocks": 2,
        "bytes": 381,
        "license": "mit",
    }


async def test_the_index_lists_what_is_there(url: str) -> None:
    answer = await get(url, "/models/index.json")
    assert json.loads(answer.body) == {"models": [entry("small")]}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["access-control-allow-origin"] == "*"


async def test_a_model_may_come_or_change_while_the_relay_runs(url: str, shelf: Path) -> None:
    await get(url, "/models/index.json")
    changed = MANIFEST + b" "
    (shelf / "small" / "manifest.json").write_bytes(changed)
    add(shelf, "another")
    answer = json.loads((await get(url, "/models/index.json")).body)
    assert answer == {"models": [entry("another"), entry("small", changed)]}


@pytest.mark.parametrize(
    "manifest", [b"", b"{}", b"[1]", b'{"blocks": "2"}', b"\xff", bytes((1 << 20) + 1)]
)
async def test_a_manifest_that_cannot_be_read_is_left_out(
    url: str, shelf: Path, manifest: bytes
) -> None:
    add(shelf, "broken", manifest)
    add(shelf, ".hidden")
    (shelf / "empty").mkdir()
    answer = json.loads((await get(url, "/models/index.json")).body)
    assert answer == {"models": [entry("small")]}


async def test_a_manifest_is_served_as_its_bytes(url: str) -> None:
    answer = await get(url, "/models/small/manifest.json")
    assert answer.body == MANIFEST
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-cache"


async def test_a_blob_is_kept_for_ever(url: str) -> None:
    answer = await get(url, f"/models/small/blobs/{BLOB_HASH}")
    assert answer.body == BLOB
    assert answer.headers["content-type"] == "application/octet-stream"
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"


async def test_a_part_of_a_blob_may_be_had(url: str) -> None:
    path = f"/models/small/blobs/{BLOB_HASH}"
    answer = await get(url, path, Range="bytes=100-199")
    assert (answer.status, answer.body) == (206, BLOB[100:200])
    assert answer.headers["content-range"] == f"bytes 100-199/{len(BLOB)}"
    assert (await get(url, path, Range="bytes=25500-")).body == BLOB[25500:]
    assert (await get(url, path, Range="bytes=99999999-")).status == 416


async def test_the_index_says_who_vouches_for_a_model_and_names_mirrors(shelf: Path) -> None:
    keys = keys_of("publisher")
    signed = await sign_manifest(keys, hashlib.sha256(MANIFEST).hexdigest())
    (shelf / "small" / "manifest.sig").write_bytes(signed)
    mirrors = ("https://mirror.example/models/",)
    settings = RelaySettings(port=0, stun=False, models=shelf, mirrors=mirrors)
    async with Relay(settings) as relay:
        index = json.loads((await get(relay.url, "/models/index.json")).body)
        (shelf / "small" / "manifest.sig").write_bytes(b'{"publisher": 1}')
        broken = json.loads((await get(relay.url, "/models/index.json")).body)
    assert index["mirrors"] == list(mirrors)
    assert index["models"] == [entry("small") | {"signed": json.loads(signed)}]
    assert broken["models"] == [entry("small")]
    with pytest.raises(ConfigError, match="mirror"):
        RelaySettings(mirrors=("file:///etc/",))


async def test_what_is_sent_of_each_file_is_counted(shelf: Path) -> None:
    async with Relay(RelaySettings(port=0, stun=False, models=shelf)) as relay:
        path = f"/models/small/blobs/{BLOB_HASH}"
        await get(relay.url, path, Range="bytes=100-199")
        await get(relay.url, path)
        await get(relay.url, "/models/small/blobs/" + "0" * 64)
        assert relay.hub.counters.shard_bytes == {BLOB_HASH: 100 + len(BLOB)}


@pytest.mark.parametrize(
    "path",
    [
        "/models/small/blobs/../../../secret",
        "/models/small/blobs/..%2f..%2f..%2fsecret",
        "/models/%2e%2e/manifest.json",
        "/models/../manifest.json",
        "/models/small/blobs/" + BLOB_HASH.upper(),
        "/models/small/blobs/" + "0" * 64,
        "/models/small/blobs/" + BLOB_HASH + "%0a",
        "/models/small%00/manifest.json",
        "/models/absent/manifest.json",
        "/models/small/blobs/",
        "/models/small",
        "/models",
    ],
)
async def test_nothing_else_is_served(url: str, path: str) -> None:
    answer = await get(url, path)
    assert answer.status == 404
    assert b"secret" not in answer.body


async def test_a_manifest_that_disappears_is_no_longer_listed(url: str, shelf: Path) -> None:
    os.remove(shelf / "small" / "manifest.json")
    answer = await get(url, "/models/index.json")
    assert json.loads(answer.body) == {"models": []}
    assert (await get(url, "/models/small/manifest.json")).status == 404
