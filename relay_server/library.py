"""The models on this machine: one folder each, with manifest.json and blobs/<sha256>."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pyodide_node.errors import ConfigError, IntegrityError, KwaaiNetError
from pyodide_node.model.manifest import PIECE, Blob, Manifest, decode_manifest
from pyodide_node.model.pieces import pieces_of

__all__ = ["Fault", "Library", "plain_name"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_BROKEN_NAME = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Fault:
    """A file that is not what the manifest says."""

    what: str
    """What the file is for: `layer 3`, `head`."""
    blob: Blob
    reason: str


class Library:
    """The folder of models that a relay of this machine offers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def folder(self, name: str) -> Path:
        """Where a model of this name lies or would lie. Raises ConfigError for what is no name."""
        if not _NAME.match(name):
            raise ConfigError(
                f"{name[:120]!r} cannot be a model's name: up to 100 letters, digits, dots, dashes"
                " and underscores, beginning with a letter or digit",
                setting="name",
            )
        return self.directory / name

    def names(self) -> list[str]:
        """Models here, those that are not finished included."""
        if not self.directory.is_dir():
            return []
        return sorted(
            path.name
            for path in self.directory.iterdir()
            if _NAME.match(path.name) and path.is_dir()
        )

    def find(self, name: str) -> Manifest | None:
        """The manifest of a finished model; None where there is none.

        Raises ConfigError, ManifestError.
        """
        path = self.folder(name) / "manifest.json"
        return decode_manifest(path.read_bytes()) if path.is_file() else None

    def manifest(self, name: str) -> Manifest:
        """As `find`; ConfigError where there is none."""
        manifest = self.find(name)
        if manifest is None:
            known = ", ".join(self.names()) or "none yet"
            hint = "it is not finished: add it again" if self.folder(name).is_dir() else known
            raise ConfigError(
                f"there is no model {name!r} in {self.directory} ({hint})", setting="name"
            )
        return manifest

    def remove(self, name: str) -> None:
        """Takes a model away, its manifest first, so that a relay stops offering it at once."""
        folder = self.folder(name)
        if folder.is_symlink():
            folder.unlink()
            return
        (folder / "manifest.json").unlink(missing_ok=True)
        shutil.rmtree(folder)

    def verify(self, name: str, progress: Callable[[int], None]) -> list[Fault]:
        """Reads every file and compares it with the manifest, its pieces too.

        `progress` gets the bytes read since it was last called. Raises as `manifest`.
        """
        manifest = self.manifest(name)
        blobs = self.folder(name) / "blobs"
        faults: list[Fault] = []
        for what, blob in _named(manifest):
            try:
                _check(blobs, blob, progress)
            except OSError as error:
                faults.append(Fault(what, blob, error.strerror or str(error)))
            except KwaaiNetError as error:
                faults.append(Fault(what, blob, str(error)))
        return faults


def plain_name(text: str) -> str:
    """A model's name made of what a file or folder is called; empty where nothing is left."""
    return _BROKEN_NAME.sub("-", text).strip("-._")[:100]


def _named(manifest: Manifest) -> Iterator[tuple[str, Blob]]:
    """Every file once, with what it is for."""
    graphs = manifest.graphs
    every = [
        ("tokenizer", manifest.tokenizer),
        ("rotary table", manifest.rope),
        ("embedding", manifest.embed),
        ("head", manifest.head),
        *((f"layer {index}", blob) for index, blob in enumerate(manifest.layers)),
        ("graph of the embedding", graphs.embed),
        ("graph of the whole", graphs.whole),
    ]
    for variant, of in graphs.variants.items():
        every.append((f"{variant} graph of the head", of.head))
        every += [(f"{variant} graph of {count} blocks", blob) for count, blob in of.spans.items()]
    seen: set[str] = set()
    for what, blob in every:
        if blob.sha256 not in seen:
            seen.add(blob.sha256)
            yield what, blob


def _check(blobs: Path, blob: Blob, progress: Callable[[int], None]) -> None:
    """Raises OSError, IntegrityError."""
    size = (blobs / blob.sha256).stat().st_size
    if size != blob.bytes:
        raise IntegrityError(f"{size} bytes instead of {blob.bytes}")
    pieces = []
    if blob.dag is not None:
        pieces = pieces_of((blobs / blob.dag).read_bytes(), blob)
    whole = hashlib.sha256()
    off: int | None = None
    with (blobs / blob.sha256).open("rb") as file:
        for number, piece in enumerate(iter(lambda: file.read(PIECE), b"")):
            whole.update(piece)
            progress(len(piece))
            if off is None and pieces and hashlib.sha256(piece).digest() != pieces[number]:
                off = number
    if whole.hexdigest() != blob.sha256:
        where = "" if off is None else f", from byte {off * PIECE} on"
        raise IntegrityError(f"its content is another one{where}")
