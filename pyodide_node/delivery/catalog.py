"""Finding a model and its files: an index says what there is, hashes say what is true.

A source is a folder URL with `index.json`, `<name>/manifest.json` and `<name>/blobs/<sha256>`.
The index is only a hint; a manifest must have the id that was asked for, and every blob the hash
that the manifest pins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from pyodide_node.errors import (
    KwaaiNetError,
    ManifestError,
    RemoteError,
    StoreError,
    UnknownModel,
)
from pyodide_node.hosts.base import Keys, Store
from pyodide_node.model.manifest import Manifest, decode_manifest
from pyodide_node.model.publisher import Publication, check_publisher
from pyodide_node.wire.malformed import MALFORMED

__all__ = ["Catalog", "Model"]

_INDEX_LIMIT = 1 << 20
_MANIFEST_LIMIT = 1 << 20


class _IndexEntry(Struct, frozen=True):
    name: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")]
    id: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    signed: Publication | None = None


class _Index(Struct, frozen=True):
    models: Annotated[list[_IndexEntry], Meta(max_length=1000)]
    mirrors: Annotated[list[Annotated[str, Meta(max_length=500)]], Meta(max_length=16)] = []
    """Folders like this one, each ending in "/", that have the same files."""


@dataclass(frozen=True, slots=True)
class Model:
    """A manifest that has been checked, and the folders its blobs may come from."""

    manifest: Manifest
    id: str
    folders: tuple[str, ...]


class Catalog:
    """The models that `sources` (folder URLs, each ending in "/") offer."""

    def __init__(
        self, store: Store, sources: Sequence[str], keys: Keys, publisher: str = ""
    ) -> None:
        """`publisher`: a did:key that must have signed the model; "": anybody may have."""
        self._store = store
        self._sources = list(sources)
        self._keys = keys
        self._publisher = publisher

    async def find(self, wanted: str) -> Model:
        """The model of this name or id, or pinned as name@id; "" is the first there is.

        Raises UnknownModel, ManifestError, Unreachable, StoreError.
        """
        name, _, pinned = wanted.partition("@")
        known: list[str] = []
        problem: KwaaiNetError | None = None
        for source in self._sources:
            try:
                index = await self._index(source)
            except (RemoteError, StoreError) as error:
                problem = error
                continue
            known += [entry.name for entry in index.models]
            for entry in index.models:
                if name not in ("", entry.name, entry.id) or pinned not in ("", entry.id):
                    continue
                try:
                    return await self._load(source, entry, index.mirrors)
                except (RemoteError, StoreError) as error:
                    problem = error
        if problem is not None:
            raise problem
        raise UnknownModel(
            f"no source offers the model {wanted!r}; it can be one of: {', '.join(known) or '–'}",
            model=wanted,
            known=known,
        )

    async def _index(self, source: str) -> _Index:
        data = await self._store.fetch(source + "index.json", _INDEX_LIMIT)
        try:
            return msgspec.json.decode(data, type=_Index)
        except MALFORMED as error:
            raise ManifestError(f"the model index is malformed: {error}", url=source) from None

    async def _load(self, source: str, entry: _IndexEntry, mirrors: Sequence[str]) -> Model:
        await check_publisher(self._keys, entry.id, entry.signed, self._publisher)
        folder = f"{source}{entry.name}/"
        data = await self._store.fetch(folder + "manifest.json", _MANIFEST_LIMIT)
        if hashlib.sha256(data).hexdigest() != entry.id:
            raise ManifestError("the manifest is not the one that the index names", url=folder)
        # Any other source may have the same files: their hashes, not it, say whether they are.
        # What a source names must be on the web: a path would be read from this machine.
        listed = [one for one in mirrors if one.startswith(("https://", "http://"))]
        sources = list(dict.fromkeys([source, *self._sources, *listed]))
        folders = tuple(f"{one}{entry.name}/blobs/" for one in sources)
        return Model(decode_manifest(data), entry.id, folders)
