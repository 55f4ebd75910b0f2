"""What only a store on a real disk, over real HTTP, can get wrong."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pyodide_node.errors import StoreError, Unreachable
from pyodide_node.hosts.native import NativeStore
from pyodide_node.hosts.native import web as native_web

BLOB = b"blob" * 1000
SHA = hashlib.sha256(BLOB).hexdigest()
ALL = [(SHA, len(BLOB))]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[NativeStore]:
    store = NativeStore(tmp_path / "blobs", tmp_path / "values")
    yield store
    store.close()


@contextmanager
def serving(answer: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Quiet(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


async def test_what_is_kept_outlives_the_process(store: NativeStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(BLOB)
    await store.pull(str(source), None, ALL, keep=True, got=lambda *told: None)
    await store.put("name", b"value")
    later = NativeStore(tmp_path / "blobs", tmp_path / "values")
    assert await later.join(ALL) == BLOB
    assert await later.get("name") == b"value"
    later.close()


async def test_local_files_are_read_by_path_and_by_url(store: NativeStore, tmp_path: Path) -> None:
    source = tmp_path / "a model"
    source.write_bytes(BLOB)
    assert await store.fetch(str(source), len(BLOB)) == BLOB
    assert await store.fetch(source.as_uri(), len(BLOB)) == BLOB
    for absent in (str(tmp_path / "absent"), (tmp_path / "absent").as_uri(), str(tmp_path), "\0"):
        with pytest.raises(Unreachable):
            await store.fetch(absent, 100)


async def test_nothing_but_a_hash_becomes_part_of_a_path(store: NativeStore) -> None:
    for name in ("", "../../identity.pem", "A" * 64, SHA + "/", SHA[:-1]):
        with pytest.raises(StoreError):
            await store.read(name, 1)


async def test_foreign_files_among_the_blobs_are_not_listed(
    store: NativeStore, tmp_path: Path
) -> None:
    (tmp_path / "blobs" / "ab").mkdir()
    (tmp_path / "blobs" / "ab" / "half.part").write_bytes(b"half")
    assert await store.held() == {}


async def test_a_redirect_is_followed_but_never_to_a_file(
    store: NativeStore, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")

    class Redirect(Quiet):
        def do_GET(self) -> None:
            if self.path == "/end":
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"end")
                return
            self.send_response(302)
            self.send_header("Location", "/end" if self.path == "/start" else secret.as_uri())
            self.end_headers()

    with serving(Redirect) as url:
        assert await store.fetch(f"{url}/start", 10) == b"end"
        with pytest.raises(Unreachable):
            await store.fetch(f"{url}/file", 10)


async def test_an_answer_that_breaks_off_is_refused(store: NativeStore) -> None:
    class Half(Quiet):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(BLOB)))
            self.end_headers()
            self.wfile.write(BLOB[:100])

    with serving(Half) as url, pytest.raises(Unreachable):
        await store.pull(url, None, ALL, keep=True, got=lambda *told: None)
    assert await store.held() == {}


async def test_an_answer_with_another_part_of_the_file_is_refused(store: NativeStore) -> None:
    class Elsewhere(Quiet):
        def do_GET(self) -> None:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes 0-{len(BLOB) - 1}/{2 * len(BLOB)}")
            self.send_header("Content-Length", str(len(BLOB)))
            self.end_headers()
            self.wfile.write(BLOB)

    with serving(Elsewhere) as url, pytest.raises(Unreachable, match="another part"):
        await store.pull(url, len(BLOB), ALL, keep=True, got=lambda *told: None)


async def test_a_part_of_a_local_file_is_read(store: NativeStore, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(b"before" + BLOB + b"after")
    assert await store.pull(str(source), 6, ALL, keep=True, got=lambda *told: None)
    assert await store.join(ALL) == BLOB


async def test_a_server_that_says_nothing_is_given_up(
    store: NativeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_web, "TIMEOUT", 0.1)
    done = threading.Event()

    class Silent(Quiet):
        def do_GET(self) -> None:
            done.wait()

    with serving(Silent) as url:
        with pytest.raises(Unreachable):
            await store.fetch(url, 10)
        done.set()


async def test_a_cancelled_download_stops_reading(store: NativeStore) -> None:
    started, cancelled, ended = asyncio.Event(), threading.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    class Endless(Quiet):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            loop.call_soon_threadsafe(started.set)
            cancelled.wait(10)
            try:
                while True:
                    self.wfile.write(bytes(1 << 16))
            except OSError:
                ended.set()

    with serving(Endless) as url:
        task = asyncio.create_task(
            store.pull(url, None, [(SHA, 1 << 28)], keep=True, got=lambda *told: None)
        )
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        cancelled.set()
        assert await asyncio.to_thread(ended.wait, 10)
