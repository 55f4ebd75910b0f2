"""The models that this relay offers for download: one folder each, files named by their hash."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import anyio.to_thread
import msgspec
from msgspec import Struct
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from pyodide_node.model.publisher import Publication
from pyodide_node.wire.malformed import MALFORMED
from relay_server.headers import IMMUTABLE, REVALIDATE, headers_for

__all__ = ["Model", "ModelShelf"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_HASH = re.compile(r"[0-9a-f]{64}\Z")
_MAX_MANIFEST = 1 << 20
_MAX_SIGNATURE = 1024


class _Sized(Struct, frozen=True):
    bytes: int = 0


class _Summary(Struct, frozen=True):
    """What the index tells of a manifest. Nodes check the rest; the relay only serves it."""

    blocks: int
    license: str
    layers: list[_Sized] = []
    tokenizer: _Sized = _Sized()
    rope: _Sized = _Sized()
    embed: _Sized = _Sized()
    head: _Sized = _Sized()


class Model(Struct, frozen=True, omit_defaults=True):
    name: str
    """Its folder's name, for URLs."""
    id: str
    """sha256 of the manifest's bytes, in hex."""
    blocks: int
    bytes: int
    """Of weights, tokenizer and rotary table."""
    license: str
    signed: Publication | None = None
    """Who vouches for it, as `manifest.sig` says; nodes check that."""


class ModelShelf:
    """Reads the directory when asked, so that a model can be added while the relay runs."""

    def __init__(self, directory: Path, mirrors: Sequence[str] = ()) -> None:
        self._directory = directory
        self._mirrors = list(mirrors)
        self._known: dict[str, tuple[int, int, Model]] = {}

    @property
    def routes(self) -> list[Route]:
        return [
            Route("/models/index.json", self._index),
            Route("/models/{name}/manifest.json", self._manifest),
            Route("/models/{name}/blobs/{sha256}", self._blob),
        ]

    def models(self) -> list[Model]:
        """By name; folders whose manifest cannot be read are left out."""
        found = []
        for path in sorted(self._directory.glob("*/manifest.json")):
            model = self._model(path)
            if model is not None:
                found.append(msgspec.structs.replace(model, signed=_publication(path)))
        return found

    def _model(self, path: Path) -> Model | None:
        name = path.parent.name
        try:
            stat = path.stat()
            known = self._known.get(name)
            if known is not None and known[:2] == (stat.st_mtime_ns, stat.st_size):
                return known[2]
            if not _NAME.match(name) or stat.st_size > _MAX_MANIFEST:
                return None
            data = path.read_bytes()
            summary = msgspec.json.decode(data, type=_Summary)
        except (OSError, msgspec.DecodeError):
            return None
        ends = (summary.tokenizer, summary.rope, summary.embed, summary.head)
        model = Model(
            name=name,
            id=hashlib.sha256(data).hexdigest(),
            blocks=summary.blocks,
            bytes=sum(blob.bytes for blob in (*summary.layers, *ends)),
            license=summary.license,
        )
        self._known[name] = (stat.st_mtime_ns, stat.st_size, model)
        return model

    async def _index(self, request: Request) -> Response:
        index: dict[str, object] = {"models": await anyio.to_thread.run_sync(self.models)}
        if self._mirrors:
            index["mirrors"] = self._mirrors
        headers = headers_for("models/index.json")
        return Response(msgspec.json.encode(index), media_type="application/json", headers=headers)

    async def _manifest(self, request: Request) -> Response:
        name = _matched(_NAME, request.path_params["name"])
        path = self._directory / name / "manifest.json"
        return await _file(path, "application/json", REVALIDATE)

    async def _blob(self, request: Request) -> Response:
        name = _matched(_NAME, request.path_params["name"])
        sha256 = _matched(_HASH, request.path_params["sha256"])
        path = self._directory / name / "blobs" / sha256
        return await _file(path, "application/octet-stream", IMMUTABLE)


def _publication(manifest: Path) -> Publication | None:
    try:
        with manifest.with_suffix(".sig").open("rb") as file:
            return msgspec.json.decode(file.read(_MAX_SIGNATURE), type=Publication)
    except (OSError, *MALFORMED):
        return None


def _matched(pattern: re.Pattern[str], value: str) -> str:
    if not pattern.match(value):
        raise HTTPException(404)
    return value


async def _file(path: Path, media_type: str, caching: str) -> Response:
    if not await anyio.to_thread.run_sync(path.is_file):
        raise HTTPException(404)
    headers = headers_for("models/file") | {"Cache-Control": caching}
    return FileResponse(path, media_type=media_type, headers=headers)
