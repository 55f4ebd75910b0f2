"""The browser files go to any site, with the headers they need, compressed where possible."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import brotli  # type: ignore[import-untyped]
import pytest

from relay_server import Relay, RelaySettings
from relay_server.files import accepted
from relay_server.headers import media_type
from tests.relay_server.http import get

WASM = b"\0asm" + bytes(range(256)) * 20


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    cdn = tmp_path / "cdn"
    (cdn / "runtime").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "cdn-private").mkdir()
    (tmp_path / "cdn-private" / "secret.txt").write_text("secret")
    (cdn / "way-out").symlink_to(tmp_path)
    for name in ("sovereign-ai.js", "frame.js", "worker.js"):
        (cdn / name).write_text(f"// {name}")
    (cdn / "frame.html").write_text("<!doctype html>")
    wasm = cdn / "runtime" / "node-0123.wasm"
    wasm.write_bytes(WASM)
    wasm.with_name("node-0123.wasm.br").write_bytes(brotli.compress(WASM))
    wasm.with_name("node-0123.wasm.gz").write_bytes(gzip.compress(WASM))
    async with Relay(RelaySettings(port=0, stun=False, cdn=cdn)) as relay:
        yield relay.url


@pytest.mark.parametrize(
    ("path", "type"),
    [
        ("/sovereign-ai.js", "text/javascript; charset=utf-8"),
        ("/frame.html", "text/html; charset=utf-8"),
        ("/frame.js", "text/javascript; charset=utf-8"),
        ("/worker.js", "text/javascript; charset=utf-8"),
        ("/runtime/node-0123.wasm", "application/wasm"),
    ],
)
async def test_any_site_may_load_a_file_and_none_may_mistake_it(
    url: str, path: str, type: str
) -> None:
    answer = await get(url, path, Origin="https://site.example")
    assert answer.status == 200
    assert answer.headers["content-type"] == type
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/frame.html", "/frame.js", "/worker.js"])
async def test_isolated_sites_may_embed_the_frame_and_its_worker(url: str, path: str) -> None:
    answer = await get(url, path)
    assert answer.headers["cross-origin-embedder-policy"] == "require-corp"


async def test_the_frame_may_do_only_what_it_needs(url: str) -> None:
    policy = (await get(url, "/frame.html")).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self' 'wasm-unsafe-eval'" in policy
    assert "frame-ancestors *" in policy
    assert "'unsafe-eval'" not in policy
    assert "content-security-policy" not in (await get(url, "/worker.js")).headers


async def test_the_worker_may_serve_a_whole_site(url: str) -> None:
    assert (await get(url, "/worker.js")).headers["service-worker-allowed"] == "/"
    assert "service-worker-allowed" not in (await get(url, "/frame.js")).headers


async def test_named_files_are_kept_for_ever_and_others_asked_about(url: str) -> None:
    assert "immutable" in (await get(url, "/runtime/node-0123.wasm")).headers["cache-control"]
    first = await get(url, "/worker.js")
    assert first.headers["cache-control"] == "no-cache"
    again = await get(url, "/worker.js", If_None_Match=first.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    # Browsers would put it in the place of the one that the file came with.
    assert "content-security-policy" not in again.headers


@pytest.mark.parametrize(
    ("accepts", "encoding"),
    [
        ("gzip, deflate, br, zstd", "br"),
        ("gzip", "gzip"),
        ("GZIP;q=0.5", "gzip"),
        ("br;q=0, gzip", "gzip"),
        ("br; q=0.0, gzip ;q=0", None),
        ("identity", None),
        ("", None),
        ("brotli", None),
    ],
)
async def test_files_come_in_the_best_form_that_was_made(
    url: str, accepts: str, encoding: str | None
) -> None:
    answer = await get(url, "/runtime/node-0123.wasm", Accept_Encoding=accepts)
    assert answer.headers.get("content-encoding") == encoding
    assert answer.headers["content-type"] == "application/wasm"
    assert answer.headers["vary"] == "Accept-Encoding"
    unpack = {"br": brotli.decompress, "gzip": gzip.decompress}.get(encoding or "", bytes)
    assert unpack(answer.body) == WASM


async def test_each_form_has_its_own_tag(url: str) -> None:
    tags = {
        (await get(url, "/runtime/node-0123.wasm", Accept_Encoding=accepts)).headers["etag"]
        for accepts in ("br", "gzip", "identity")
    }
    assert len(tags) == 3


async def test_a_file_that_was_not_compressed_comes_as_it_is(url: str) -> None:
    answer = await get(url, "/worker.js", Accept_Encoding="br")
    assert "content-encoding" not in answer.headers
    assert answer.body == b"// worker.js"


async def test_head_tells_the_headers_alone(url: str) -> None:
    answer = await get(url, "/runtime/node-0123.wasm", method="HEAD", Accept_Encoding="identity")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-length"] == str(len(WASM))


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/runtime/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/..%5csecret.txt",
        "/runtime/..%2f..%2fsecret.txt",
        "//secret.txt",
        "/%2fetc%2fpasswd",
        "//etc/passwd",
        "/../cdn-private/secret.txt",
        "/way-out/secret.txt",
        "/%00",
        "/worker.js%00.html",
        "/runtime",
        "/" + "a" * 5000,
    ],
)
async def test_nothing_outside_the_directory_is_served(url: str, path: str) -> None:
    answer = await get(url, path)
    assert answer.status in (400, 404)
    assert b"secret" not in answer.body
    assert b"root:" not in answer.body


async def test_files_are_only_read(url: str) -> None:
    for method in ("POST", "PUT", "DELETE"):
        assert (await get(url, "/worker.js", method=method)).status == 405


async def test_without_browser_files_the_relay_still_relays(relay: Relay) -> None:
    assert (await get(relay.url, "/worker.js")).status == 404
    assert (await get(relay.url, "/healthz")).status == 200


def test_types_do_not_depend_on_the_machine() -> None:
    assert media_type("a.wasm") == "application/wasm"
    assert media_type("a/b.MJS") == "text/javascript; charset=utf-8"
    assert media_type("no-extension") == media_type("a.unheard-of") == "application/octet-stream"


def test_accept_encoding_is_read_as_it_is_meant() -> None:
    assert accepted("gzip;q=1.0, br", "br")
    assert not accepted("gzip", "br")
