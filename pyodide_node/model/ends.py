"""What embedding and head take of a node's memory, and which of their forms a node takes.

The embedding may be read row by row from storage: then only the rows last used are in memory. The
head must be there whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pyodide_node.hosts.base import EngineName
from pyodide_node.model.footprint import Footprint
from pyodide_node.model.manifest import Manifest
from pyodide_node.model.table import embedding_table

__all__ = ["ROWS_BYTES", "EndsFootprint", "choose_ends", "least_ends"]

ROWS_BYTES: Final = 16_000_000
"""Of rows that were read from storage: some 7000 of 4096 weights at 4 bits, so a long prompt's."""


@dataclass(frozen=True, slots=True)
class EndsFootprint:
    """Bytes of memory that embedding and head of one model take on one engine."""

    manifest: Manifest
    engine: EngineName
    stored: bool
    """Rows of the embedding are read from storage."""

    @property
    def held(self) -> int:
        """Once they are loaded, and while the head runs."""
        return self._embed + self._head + self._of.working("head")

    @property
    def loading(self) -> int:
        """The most while they load, the head first."""
        head = self._of.copying(self.manifest.head.bytes, self._head)
        if self.stored:
            return head
        embed = self._of.copying(self._embed, self._embed, one_tensor=True)
        return max(head, self._head + embed)

    @property
    def spare(self) -> int:
        """What must stay free beside them until they are loaded; sessions may have it after."""
        return max(0, self.loading - self.held)

    @property
    def total(self) -> int:
        """What must be free for them."""
        return max(self.held, self.loading)

    @property
    def _of(self) -> Footprint:
        return Footprint(self.manifest, self.engine)

    @property
    def _embed(self) -> int:
        return (
            min(ROWS_BYTES, self.manifest.embed.bytes) if self.stored else self.manifest.embed.bytes
        )

    @property
    def _head(self) -> int:
        return self.manifest.head_bytes(self._of.variant)


def choose_ends(
    manifest: Manifest, engines: Sequence[EngineName], free: int, *, storage: bool = True
) -> EndsFootprint | None:
    """The first form that leaves half of `free` bytes to blocks, else the one that takes least;
    None if none fits. Engines are tried in their order, fastest first, each with the embedding in
    memory and then, with `storage`, without."""
    forms = _forms(manifest, engines, storage)
    for form in forms:
        if 2 * form.total <= free:
            return form
    least = min(forms, key=lambda form: form.total)
    return least if least.total <= free else None


def least_ends(manifest: Manifest, engines: Sequence[EngineName], *, storage: bool = True) -> int:
    """Bytes without which a node cannot ask."""
    return min(form.total for form in _forms(manifest, engines, storage))


def _forms(manifest: Manifest, engines: Sequence[EngineName], storage: bool) -> list[EndsFootprint]:
    ways = (False, True) if storage and embedding_table(manifest) else (False,)
    return [EndsFootprint(manifest, engine, way) for engine in engines for way in ways]
