"""Plain HTTP requests, with the path sent exactly as written."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from urllib.parse import urlsplit

__all__ = ["Answer", "get"]


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


async def get(
    url: str,
    path: str,
    *,
    method: str = "GET",
    context: ssl.SSLContext | None = None,
    **headers: str,
) -> Answer:
    """`headers` with underscores for dashes; those of the answer have lower-case names."""

    def ask() -> Answer:
        parts = urlsplit(url)
        assert parts.hostname is not None
        if context is None:
            connection = HTTPConnection(parts.hostname, parts.port, timeout=10)
        else:
            connection = HTTPSConnection(parts.hostname, parts.port, timeout=10, context=context)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers=named)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    return await asyncio.to_thread(ask)
