"""One server that is both the site and the CDN: browsers resolve every *.localhost to it.

Each test has hosts of its own, so that nothing stored by one is seen by another.
"""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css"}


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.worlds: dict[str, World] = {}
        self.numbers = itertools.count(1)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def world(self, cdn_files: dict[str, Path]) -> World:
        world = World(next(self.numbers), self.server_address[1], cdn_files)
        self.worlds[f"site{world.number}"] = self.worlds[f"cdn{world.number}"] = world
        return world


@dataclass
class World:
    number: int
    port: int
    cdn_files: dict[str, Path]
    pages: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    """Paths asked of the CDN, in order."""

    @property
    def site(self) -> str:
        return f"http://site{self.number}.localhost:{self.port}"

    @property
    def cdn(self) -> str:
        return f"http://cdn{self.number}.localhost:{self.port}"

    def page(self, attributes: str = "", body: str = "", path: str = "/") -> str:
        """Publish a page with the tag in its head; returns its URL."""
        tag = f'<script src="{self.cdn}/sovereign-ai.js" {attributes}></script>'
        self.pages[path] = (
            f'<!doctype html><html lang="en"><title>A site</title>{tag}<h1>A site</h1>{body}</html>'
        )
        return self.site + path

    def find(self, host: str, path: str) -> tuple[str, bytes] | None:
        if host.startswith("site"):
            page = self.pages.get(path)
            kind = TYPES.get(Path(path).suffix, TYPES[".html"])
            return None if page is None else (kind, page.encode())
        self.requests.append(path)
        file = self.cdn_files.get(path)
        return None if file is None else (TYPES[file.suffix], file.read_bytes())


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        host = self.headers.get("host", "").split(".")[0]
        world = self.server.worlds.get(host)
        found = world.find(host, self.path.split("?")[0]) if world else None
        content_type, body = found or ("text/plain", b"not here")
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Cross-Origin-Resource-Policy", "cross-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """The list of requests is the log."""
