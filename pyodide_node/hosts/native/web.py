"""GET by the standard library: https, redirects, proxies and time-outs, and nothing else.

Runs in a thread. A plain path or a `file:` URL reads a local file: a model on this machine. Only
the operator's own settings may name one: see `delivery.catalog`.
"""

from __future__ import annotations

import http.client
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from pyodide_node.errors import Unreachable

__all__ = ["get", "opened"]

TIMEOUT = 20.0
"""Seconds for one connect or read; a server that sends at all may take as long as it needs."""

CHUNK = 1 << 18

Source = BufferedReader | http.client.HTTPResponse
Read = Callable[[memoryview, threading.Event], int]


def get(url: str, most: int, stop: threading.Event) -> Iterator[bytes]:
    """The content of `url` in chunks, until `most` bytes have come or it ends.

    Raises Unreachable when it does not answer with content, breaks off, or `stop` is set.
    """
    with opened(url, None) as (read, _):
        while most > 0:
            chunk = bytearray(min(CHUNK, most))
            size = read(memoryview(chunk), stop)
            if not size:
                return
            most -= size
            yield bytes(chunk[:size])


@contextmanager
def opened(url: str, part: tuple[int, int] | None) -> Iterator[tuple[Read, bool]]:
    """Reads the content of `url`, or `part` of it (offset and length), into a buffer each call.

    The second value is False of a server that knows no ranges: what is before the offset has then
    been read and thrown away. Raises as `get`, also while the body of the `with` runs.
    """
    try:
        headers = {"Range": f"bytes={part[0]}-{sum(part) - 1}"} if part else {}
        with _open(url, headers) as source:

            def read(into: memoryview, stop: threading.Event) -> int:
                """Fills the buffer as far as there is content; the bytes that came."""
                at = 0
                while at < len(into):
                    size = source.readinto(into[at:])
                    if stop.is_set():
                        raise Unreachable(f"reading {url} was stopped", url=url)
                    if not size:
                        break
                    at += size
                return at

            exact = True
            if part and isinstance(source, http.client.HTTPResponse):
                exact = source.status == 206
                if not exact:
                    _skip(source, part[0])
                elif not _begins(source.headers.get("Content-Range", ""), part[0]):
                    raise Unreachable(f"{url} answers with another part of the file", url=url)
            elif part:
                source.seek(part[0])
            yield read, exact
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unreachable(f"{url} does not answer: {error}", url=url) from error


def _skip(source: Source, size: int) -> None:
    while size > 0 and (chunk := source.read(min(CHUNK, size))):
        size -= len(chunk)


def _begins(content_range: str, offset: int) -> bool:
    found = re.match(r"bytes (\d+)-", content_range)
    return found is not None and int(found[1]) == offset


@contextmanager
def _open(url: str, headers: dict[str, str]) -> Iterator[Source]:
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
