"""GET by the standard library: https, redirects, proxies and time-outs, and nothing else.

Runs in a thread. A plain path or a `file:` URL reads a local file: a model on this machine.
"""

from __future__ import annotations

import http.client
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pyodide_node.errors import Unreachable

__all__ = ["get"]

TIMEOUT = 20.0
"""Seconds for one connect or read; a server that sends at all may take as long as it needs."""

CHUNK = 1 << 18


def get(url: str, most: int, stop: threading.Event) -> Iterator[bytes]:
    """The content of `url` in chunks, until `most` bytes have come or it ends.

    Raises Unreachable when it does not answer with content, breaks off, or `stop` is set.
    """
    try:
        with _open(url) as source:
            while most > 0 and (chunk := source.read(min(CHUNK, most))):
                if stop.is_set():
                    raise Unreachable(f"reading {url} was stopped", url=url)
                most -= len(chunk)
                yield chunk
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unreachable(f"{url} does not answer: {error}", url=url) from error


@contextmanager
def _open(url: str) -> Iterator[IO[bytes] | http.client.HTTPResponse]:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme in ("http", "https"):
        request = urllib.request.Request(url, headers={"User-Agent": "kwaainet"})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310
                yield response
        except urllib.error.HTTPError as error:
            error.close()
            raise
    else:
        path = urllib.request.url2pathname(parts.path) if parts.scheme == "file" else url
        with Path(path).open("rb") as file:
            yield file
