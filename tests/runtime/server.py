"""A web server for the tests: one address, two origins (127.0.0.1 and localhost)."""

from __future__ import annotations

import contextlib
import mimetypes
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

__all__ = ["Site", "serve"]

PAGE = b"<!doctype html><title>test</title>"


@dataclass
class Site:
    """What is served, and what was asked for. May be changed while it is served."""

    folders: dict[str, Path]
    """By the first part of the path; "" is the root."""
    instead: dict[str, bytes] = field(default_factory=dict)
    """Contents by path, in place of the files."""
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    """More headers, by path."""
    rangeless: set[str] = field(default_factory=set)
    """Paths that are always sent whole."""
    cut: dict[str, int] = field(default_factory=dict)
    """Paths whose next answer breaks off at this byte of the file."""
    sent: dict[str, int] = field(default_factory=dict)
    """Bytes sent, by path."""
    requests: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def other_origin(self) -> str:
        return f"http://localhost:{self.port}"

    def content(self, path: str, part: tuple[int, int] | None = None) -> bytes | None:
        """What lies there, or bytes [first, last) of it."""
        first, last = part or (0, None)
        if path in self.instead:
            return self.instead[path][first:last]
        if path == "/blank":
            return PAGE[first:last]
        file = self._file(path)
        if not file.is_file():
            return None
        with file.open("rb") as content:
            content.seek(first)
            return content.read(-1 if last is None else last - first)

    def size(self, path: str) -> int:
        if path in self.instead:
            return len(self.instead[path])
        return self._file(path).stat().st_size

    def _file(self, path: str) -> Path:
        head, _, rest = path.lstrip("/").partition("/")
        folder, name = (self.folders[head], rest) if head in self.folders else (None, path[1:])
        return (folder or self.folders[""]) / name


def serve(site: Site) -> ThreadingHTTPServer:
    """Serve `site` until `shutdown` is called; sets its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            site.requests.append(path)
            cut = site.cut.pop(path, None)
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            by_range = asked and path not in site.rangeless
            first, last = (int(asked[1]), int(asked[2])) if asked and by_range else (0, 0)
            content = site.content(path, (first, last + 1) if by_range else None)
            if content is not None and by_range:
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{last}/{site.size(path)}")
                cut = None if cut is None else cut - first
            else:
                self.send_response(404 if content is None else 200)
            kind = mimetypes.guess_type(path)[0] or "text/html"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content or b"")))
            self.send_header("Access-Control-Allow-Origin", "*")
            if "/runtime/" in path:
                self.send_header("Cache-Control", "public, max-age=31536000, immutable")
            for name, value in site.headers.get(path, {}).items():
                self.send_header(name, value)
            # A killed worker does not wait for its answers.
            with contextlib.suppress(ConnectionError):
                self.end_headers()
                body = (content or b"")[:cut]
                site.sent[path] = site.sent.get(path, 0) + len(body)
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site.port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
