"""GET by the standard library: https, redirects, proxies and time-outs, and nothing else.

Runs in a thread. A plain path or a `file:` URL reads a local file: a model on this machine. Only
the operator's own settings may name one: see `inference.catalog`.
"""

from __future__ import annotations

import http.client
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pyodide_node.errors import Unreachable

__all__ = ["get", "get_range"]

TIMEOUT = 20.0
"""Seconds for one connect or read; a server that sends at all may take as long as it needs."""

CHUNK = 1 << 18


def get(url: str, most: int, stop: threading.Event) -> Iterator[bytes]:
    """The content of `url` in chunks, until `most` bytes have come or it ends.

    Raises Unreachable when it does not answer with content, breaks off, or `stop` is set.
    """
    with _said(url), _open(url, {}) as source:
        yield from _chunks(source, url, most, stop)


def get_range(url: str, offset: int, length: int, stop: threading.Event) -> Iterator[bytes]:
    """As `get`, of `length` bytes from `offset` on. An empty chunk comes first when the server
    knows no ranges: what is before `offset` has then been read and thrown away."""
    headers = {"Range": f"bytes={offset}-{offset + length - 1}"}
    with _said(url), _open(url, headers) as source:
        if isinstance(source, http.client.HTTPResponse):
            if source.status == 200:
                yield b""
                for _ in _chunks(source, url, offset, stop):
                    pass
            elif not _begins(source.headers.get("Content-Range", ""), offset):
                raise Unreachable(f"{url} answers with another part of the file", url=url)
        else:
            source.seek(offset)
        yield from _chunks(source, url, length, stop)


def _chunks(
    source: IO[bytes] | http.client.HTTPResponse, url: str, most: int, stop: threading.Event
) -> Iterator[bytes]:
    while most > 0 and (chunk := source.read(min(CHUNK, most))):
        if stop.is_set():
            raise Unreachable(f"reading {url} was stopped", url=url)
        most -= len(chunk)
        yield chunk


def _begins(content_range: str, offset: int) -> bool:
    found = re.match(r"bytes (\d+)-", content_range)
    return found is not None and int(found[1]) == offset


@contextmanager
def _said(url: str) -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unreachable(f"{url} does not answer: {error}", url=url) from error


@contextmanager
def _open(url: str, headers: dict[str, str]) -> Iterator[IO[bytes] | http.client.HTTPResponse]:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme in ("http", "https"):
        request = urllib.request.Request(url, headers={"User-Agent": "kwaainet", **headers})  # noqa: S310
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
