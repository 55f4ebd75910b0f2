"""Rows of the embedding, read from the pieces of its file when a text needs them.

The table of 128k tokens would take hundreds of megabytes, and an answer needs a few hundred rows.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from pyodide_node.errors import EngineError
from pyodide_node.hosts.base import Buffer, PieceReader
from pyodide_node.model.ends import ROWS_BYTES
from pyodide_node.model.manifest import Manifest
from pyodide_node.model.table import Table, embedding_table

__all__ = ["Rows", "Widen", "require_table"]

Widen = Callable[[Buffer, Buffer, Table], bytes]
"""Some rows' weights, one behind the other, and their scales likewise, as float32[n, columns]."""


def require_table(manifest: Manifest) -> Table:
    """Raises EngineError where rows cannot be read by themselves."""
    table = embedding_table(manifest)
    if table is None:
        raise EngineError(f"the embedding of {manifest.name} cannot be read row by row")
    return table


class Rows:
    """Keeps the rows last used, as they are in the file: `ROWS_BYTES` of them at most."""

    def __init__(self, table: Table, piece: PieceReader, widen: Widen) -> None:
        self._table = table
        self._piece = piece
        self._widen = widen
        self._kept: OrderedDict[int, bytearray] = OrderedDict()
        self._most = max(1, ROWS_BYTES // (table.row_bytes + table.scale_bytes))
        self._reading = asyncio.Lock()

    async def prepare(self, ids: Sequence[int]) -> None:
        """Have the rows of a long text at hand: a piece is read once for all of them, and not again
        for every few that are asked for. Raises as the reader of pieces does."""
        wanted = list(dict.fromkeys(reversed(ids)))[: self._most]
        async with self._reading:
            await self._read([one for one in wanted if one not in self._kept])
            for one in wanted:
                self._kept.move_to_end(one)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)

    async def of(self, ids: Sequence[int]) -> bytes:
        """float32[len(ids), columns]."""
        parts = [ids[at : at + self._most] for at in range(0, len(ids), self._most)]
        return b"".join([await self._some(part) for part in parts])

    async def _some(self, ids: Sequence[int]) -> bytes:
        rows: list[bytearray] = []
        while len(rows) < len(ids):  # what another text needs may drive these out meanwhile
            await self.prepare(ids)
            rows = [self._kept[one] for one in ids if one in self._kept]
        cut = self._table.row_bytes
        weights = b"".join([memoryview(row)[:cut] for row in rows])
        scales = b"".join([memoryview(row)[cut:] for row in rows])
        return self._widen(weights, scales, self._table)

    async def _read(self, ids: Iterable[int]) -> None:
        """Each piece once; only what is wanted of it stays."""
        rows = {one: bytearray(self._table.row_bytes + self._table.scale_bytes) for one in ids}
        wanted: dict[int, list[tuple[int, int, memoryview]]] = {}
        for one, row in rows.items():
            view, segment = memoryview(row), self._table.segment
            for start, size in self._table.stretches(one):
                while size:
                    number, inside = divmod(start, segment)
                    count = min(size, segment - inside)
                    wanted.setdefault(number, []).append((inside, count, view[:count]))
                    view, start, size = view[count:], start + count, size - count
        for number in sorted(wanted):
            piece = memoryview(await self._piece(number))
            for inside, count, target in wanted[number]:
                target[:] = piece[inside : inside + count]
        self._kept.update(rows)
