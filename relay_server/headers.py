"""Response headers of the browser files: any site may load them, none may confuse them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from starlette.datastructures import MutableHeaders

__all__ = [
    "FRAME_CSP",
    "IMMUTABLE",
    "MAP_CSP",
    "REVALIDATE",
    "hardened",
    "headers_for",
    "media_type",
]

IMMUTABLE: Final = "public, max-age=31536000, immutable"
REVALIDATE: Final = "no-cache"
"""Kept by browsers, but asked about each time: answered with 304 while it has not changed."""

FRAME_CSP: Final = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src * ws: wss:; "
    "worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors "
)
"""The frame runs its own script and worker, compiles WASM, and dials relays and model hosts. Who
may hold it comes last."""

_INERT: Final = "default-src 'none'; frame-ancestors 'none'; sandbox"
"""For whatever is no page, script or file of ours: should a browser show it, it can do nothing."""

_INERT_TYPES: Final = ("text/plain", "application/json", "application/octet-stream")

_HSTS: Final = "max-age=31536000"

MAP_CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The map's page asks nobody but its relay."""

_EVERY: Final = {
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".whl": "application/zip",
    ".zip": "application/zip",
}


def media_type(path: str) -> str:
    """By the name alone, whatever this machine's mime.types say."""
    dot = path.rfind(".")
    return _TYPES.get(path[dot:].lower() if dot >= 0 else "", "application/octet-stream")


def hardened(headers: MutableHeaders, *, tls: bool) -> None:
    """Add what every answer carries, wherever it was made; what it says itself stands."""
    for name, value in _EVERY.items():
        if name != "Access-Control-Allow-Origin":
            headers.setdefault(name, value)
    # Not on a 304, which has no type: browsers would take it in place of the file's own.
    if headers.get("content-type", "").startswith(_INERT_TYPES):
        headers.setdefault("Content-Security-Policy", _INERT)
    if tls:
        headers.setdefault("Strict-Transport-Security", _HSTS)


def headers_for(path: str, origins: Collection[str] = ()) -> dict[str, str]:
    """Headers of the browser file at `path`, without a leading slash. `origins`: the sites that
    may hold the frame; all of them when it is empty.

    COEP is on all that can make a document or a worker: a site that is cross-origin isolated
    refuses a frame or worker without it, and one that is not does not mind it.
    """
    headers = dict(_EVERY)
    headers["Cache-Control"] = IMMUTABLE if path.startswith("runtime/") else REVALIDATE
    if path.endswith((".html", ".js", ".mjs")):
        headers["Cross-Origin-Embedder-Policy"] = "require-corp"
    if path == "worker.js":
        headers["Service-Worker-Allowed"] = "/"
    if path == "frame.html":
        holders = " ".join(["'self'", *sorted(origins)]) if origins else "*"
        headers["Content-Security-Policy"] = FRAME_CSP + holders
    if path == "map.html":
        headers["Content-Security-Policy"] = MAP_CSP
    return headers
