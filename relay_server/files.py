"""The browser files, from one directory; precompressed siblings go to those who take them."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Scope

from relay_server.headers import headers_for, media_type

__all__ = ["BrowserFiles", "accepted"]

_ENCODINGS = (("br", ".br"), ("gzip", ".gz"))
"""Best first."""


class BrowserFiles(StaticFiles):
    """As StaticFiles, which also keeps requests within the directory."""

    def __init__(self, directory: Path, origins: Collection[str] = ()) -> None:
        super().__init__(directory=directory)
        self._root = os.path.realpath(directory)
        self._origins = origins

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        request = Headers(scope=scope)
        path = os.path.relpath(full_path, self._root)
        headers = headers_for(path, self._origins) | {"Vary": "Accept-Encoding"}
        chosen = os.fspath(full_path)
        for encoding, suffix in _ENCODINGS:
            if accepted(request.get("accept-encoding", ""), encoding):
                try:
                    stat_result = os.stat(f"{full_path}{suffix}")
                except OSError:
                    continue
                chosen = f"{full_path}{suffix}"
                headers["Content-Encoding"] = encoding
                break
        response = FileResponse(
            chosen,
            status_code=status_code,
            headers=headers,
            media_type=media_type(path),
            stat_result=stat_result,
        )
        if self.is_not_modified(response.headers, request):
            return NotModifiedResponse(response.headers)
        return response


def accepted(header: str, encoding: str) -> bool:
    """Whether an Accept-Encoding names this coding, and not with weight 0 (RFC 9110, 12.5.3)."""
    for item in header.lower().split(","):
        name, _, weight = item.partition(";")
        if name.strip() == encoding:
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
