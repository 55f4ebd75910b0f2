"""A model's files over real HTTP onto a real disk: cuts, full disks, mirrors that lie."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import re
import resource
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from pyodide_node.budget import Budget
from pyodide_node.config import ResourceLimits
from pyodide_node.delivery.catalog import Model
from pyodide_node.delivery.delivery import Delivery
from pyodide_node.delivery.storage import Storage
from pyodide_node.errors import IntegrityError, Unreachable
from pyodide_node.hosts.native import NativeHost, native_host, store
from pyodide_node.hosts.simulated import simulated_model
from pyodide_node.model.manifest import PIECE, Blob
from pyodide_node.model.pieces import describe

PIECES = 12
CONTENT = hashlib.shake_256(b"a layer").digest(PIECES * PIECE - 77)
BLOB, ROOT = describe(CONTENT)
assert ROOT is not None


@dataclass
class Server:
    """Counts what it sends of each file, byte by byte."""

    files: dict[str, bytes]
    cut_after: int | None = None
    """Bytes of the file after which it hangs up, over all requests."""
    ranges: bool = True
    sent: dict[str, list[int]] = field(default_factory=dict)
    """How often each MiB of a file was sent whole."""
    total: int = 0
    port: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def allowed(self, wanted: int) -> int:
        """How much of it may still be sent."""
        with self.lock:
            left = wanted if self.cut_after is None else max(0, self.cut_after - self.total)
            now = min(wanted, left)
            self.total += now
            return now


@contextlib.contextmanager
def serving(server: Server) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = server.files.get(self.path[1:])
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if body is None:
                self.send_error(404)
                return
            first, last = (int(asked[1]), int(asked[2])) if asked else (0, len(body) - 1)
            if not server.ranges:
                first, last = 0, len(body) - 1
            self.send_response(206 if asked and server.ranges else 200)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(body)}")
            self.send_header("Content-Length", str(last + 1 - first))
            self.end_headers()
            count = server.sent.setdefault(self.path[1:], [0] * -(-len(body) // PIECE))
            for at in range(first, last + 1, PIECE):
                piece = body[at : min(at + PIECE, last + 1)]
                may = server.allowed(len(piece))
                with contextlib.suppress(OSError):
                    self.wfile.write(piece[:may])
                if may < len(piece):
                    return
                count[at // PIECE] += 1

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.port = http.server_port
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


def files(content: bytes = CONTENT) -> dict[str, bytes]:
    assert BLOB.dag is not None
    assert ROOT is not None
    return {BLOB.sha256: content, BLOB.dag: ROOT}


def model(*folders: str) -> Model:
    """A model whose first layer is the file above."""
    manifest = simulated_model(blocks=1).manifest
    known = msgspec.structs.replace(manifest, layers=[BLOB])
    return Model(known, "0" * 64, folders)


@asynccontextmanager
async def delivering(
    folder: Path, *servers: Server, storage: int = 1000
) -> AsyncIterator[tuple[NativeHost, Delivery]]:
    host = await native_host(folder)
    budget = Budget(host.clock, "native", ResourceLimits(storage=storage))
    kept = Storage(host, budget, lambda: None)
    await kept.open()
    delivery = Delivery(host, model(*(server.url for server in servers)), kept)
    await delivery.start()
    try:
        yield host, delivery
    finally:
        await delivery.close()
        host.close()


async def fetch(delivery: Delivery, blob: Blob = BLOB) -> bytes:
    content: bytes = await delivery(blob.sha256, blob.bytes)
    return content


@pytest.mark.parametrize("storage", [1000, 0], ids=["kept", "not kept"])
async def test_a_file_comes_whole_and_each_byte_once(tmp_path: Path, storage: int) -> None:
    with serving(Server(files())) as server:
        async with delivering(tmp_path, server, storage=storage) as (_, delivery):
            assert await fetch(delivery) == CONTENT
            assert server.sent[BLOB.sha256] == [1] * PIECES
            assert delivery.downloaded["mirrors"] == len(CONTENT) + len(ROOT or b"")


async def test_a_connection_cut_at_half_is_taken_up_where_it_ended(tmp_path: Path) -> None:
    """No byte that was verified before the cut is sent again, by another run of the node."""
    with serving(Server(files(), cut_after=len(CONTENT) // 2)) as server:
        async with delivering(tmp_path, server) as (host, delivery):
            with pytest.raises(Unreachable):
                await fetch(delivery)
            held = await host.store.held()
        before = list(server.sent[BLOB.sha256])
        assert PIECES // 2 - 4 <= sum(before) < PIECES
        assert len(held) == sum(before) + 1  # and the root
        server.cut_after = None
        async with delivering(tmp_path, server) as (_, delivery):
            assert await fetch(delivery) == CONTENT
            assert server.sent[BLOB.sha256] == [1] * PIECES
            assert delivery.downloaded["mirrors"] == len(CONTENT) - sum(before) * PIECE + (
                0 if before[-1] == 0 else 77
            )


async def test_a_server_that_knows_no_ranges_is_asked_for_a_file_once(tmp_path: Path) -> None:
    with serving(Server(files(), ranges=False)) as server:
        async with delivering(tmp_path, server) as (_, delivery):
            assert await fetch(delivery) == CONTENT
            # The first requests, sent before that was known, and one for what was left.
            assert max(server.sent[BLOB.sha256]) <= 8


async def test_a_mirror_that_lies_is_dropped_and_the_rest_comes_from_the_next(
    tmp_path: Path,
) -> None:
    wrong = bytearray(CONTENT)
    wrong[::PIECE] = bytes(byte ^ 1 for byte in wrong[::PIECE])
    with serving(Server(files(bytes(wrong)))) as liar, serving(Server(files())) as honest:
        async with delivering(tmp_path, liar, honest) as (_, delivery):
            assert await fetch(delivery) == CONTENT
            assert honest.sent[BLOB.sha256] == [1] * PIECES
        async with delivering(tmp_path / "other", liar) as (_, delivery):
            with pytest.raises(IntegrityError, match=r"not what its hash says.*tried"):
                await fetch(delivery)


async def test_a_mirror_that_is_gone_is_passed_over(tmp_path: Path) -> None:
    gone = Server({}, port=9)
    with serving(Server(files())) as server:
        async with delivering(tmp_path, gone, server) as (_, delivery):
            assert await fetch(delivery) == CONTENT
        async with delivering(tmp_path / "other", gone) as (_, delivery):
            with pytest.raises(Unreachable, match=r"tried http://127.0.0.1:9/"):
                await fetch(delivery)


async def test_a_disk_that_fills_up_midway_keeps_what_it_has_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    written, real = itertools.count(), store._written

    def filling(path: Path, content: bytes, mode: int) -> bool:
        if next(written) == PIECES // 2:  # the kernel says EFBIG, as it would ENOSPC
            resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
        return real(path, content, mode)

    with serving(Server(files())) as server:
        async with delivering(tmp_path, server) as (host, delivery):
            monkeypatch.setattr(store, "_written", filling)
            try:
                assert await fetch(delivery) == CONTENT  # the rest of it was in memory
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
                monkeypatch.undo()
            held = await host.store.held()
        assert 0 < len(held) < PIECES
        first = list(server.sent[BLOB.sha256])
        async with delivering(tmp_path, server) as (host, delivery):
            assert await fetch(delivery) == CONTENT
            assert len(await host.store.held()) == PIECES + 1
        again = [now - then for now, then in zip(server.sent[BLOB.sha256], first, strict=True)]
        assert sum(again) == PIECES + 1 - len(held)


async def test_the_least_recently_used_makes_room(tmp_path: Path) -> None:
    with serving(Server(files())) as server:
        async with delivering(tmp_path, server, storage=14) as (host, delivery):
            old = {hashlib.sha256(bytes([n]) * PIECE).hexdigest(): bytes([n]) for n in range(3)}
            for sha256, byte in old.items():
                await host.store.take(sha256, byte * PIECE, keep=True)
            await delivery._storage.open()
            assert await fetch(delivery) == CONTENT
            held = await host.store.held()
            assert sum(held.values()) <= 14_000_000
            left = [sha256 for sha256 in old if sha256 in held]
            assert left == list(old)[-len(left) :] if left else True
            assert len(left) < 3


async def test_files_asked_for_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    with serving(Server(files())) as server:
        async with delivering(tmp_path, server) as (_, delivery):
            first, second = await asyncio.gather(fetch(delivery), fetch(delivery))
            assert first == second == CONTENT
