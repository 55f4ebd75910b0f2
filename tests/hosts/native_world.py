"""The real world's handles: a `websockets` server, an HTTP server, the disk, built shards."""

from __future__ import annotations

import contextlib
import http.server
import re
import resource
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from pyodide_node.hosts.base import BlobReader, Buffer, Host
from pyodide_node.hosts.native import NativeHost, native_host
from pyodide_node.model.manifest import decode_manifest
from tests.hosts.worlds import RelaySide

FILE_LIMIT = 64 * 1024


class Side:
    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with contextlib.suppress(ConnectionClosed):
            async for message in self._connection:
                assert isinstance(message, bytes)
                yield message

    async def send(self, data: Buffer) -> None:
        await self._connection.send(data)

    async def close(self) -> None:
        await self._connection.close()


class Web:
    """HTTP on loopback; started when something is first published."""

    def __init__(self) -> None:
        content: dict[str, bytes] = {}
        rangeless: set[str] = set()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = content.get(self.path)
                asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
                if body is not None and asked and self.path not in rangeless:
                    first, last = int(asked[1]), min(int(asked[2]), len(body) - 1)
                    whole = len(body)
                    body = body[first : last + 1]
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {first}-{last}/{whole}")
                else:
                    self.send_response(200 if body is not None else 404)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # a client may have had enough
                    self.wfile.write(body or b"")

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.content = content
        self.rangeless = rangeless
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class NativeWorld:
    exact = False

    def __init__(self, folder: Path, shards: Path) -> None:
        self.manifest = decode_manifest((shards / "manifest.json").read_bytes())
        self.folder = folder
        self._shards = shards
        self._hosts: list[NativeHost] = []
        self._servers: list[Server] = []
        self._web: Web | None = None

    async def host(self, name: str = "ada", *, denied: bool = False) -> Host:
        cache = self.folder / name / "cache"
        if denied:
            # A file where a folder would have to be: refused to root as well.
            (self.folder / "file").write_bytes(b"")
            cache = self.folder / "file" / "cache"
        host = await native_host(self.folder / name, cache_dir=cache)
        self._hosts.append(host)
        return host

    async def relay(self, handler: Callable[[RelaySide], Awaitable[None]]) -> str:
        async def handle(connection: ServerConnection) -> None:
            with contextlib.suppress(ConnectionClosed):
                await handler(Side(connection))

        server = await serve(
            handle, "127.0.0.1", 0, compression=None, max_size=None, close_timeout=1
        )
        self._servers.append(server)
        return f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    def publish(self, path: str, content: bytes, *, ranges: bool = True) -> str:
        if self._web is None:
            self._web = Web()
        self._web.content[f"/{path}"] = content
        if not ranges:
            self._web.rangeless.add(f"/{path}")
        return f"http://127.0.0.1:{self._web.server.server_port}/{path}"

    def nowhere(self, scheme: str) -> str:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        return f"{scheme.removesuffix('s')}://127.0.0.1:{port}"

    @contextlib.contextmanager
    def full(self, host: Host) -> Iterator[None]:
        """The kernel refuses to let any file grow beyond the limit (EFBIG, as ENOSPC would)."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    def damage(self, host: Host, sha256: str) -> None:
        (path,) = self.folder.glob(f"*/cache/*/{sha256}")
        content = bytearray(path.read_bytes())
        content[0] ^= 1
        path.write_bytes(content)

    @property
    def blob(self) -> BlobReader:
        async def read(sha256: str, size: int) -> bytes:
            return (self._shards / "blobs" / sha256).read_bytes()

        return read

    async def close(self) -> None:
        for host in self._hosts:
            host.close()
        for server in self._servers:
            server.close()
            await server.wait_closed()
        if self._web:
            self._web.close()
