"""Where the rows of the embedding lie in its file, so that single ones can be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyodide_node.model.locked import SEGMENT, TAG
from pyodide_node.model.manifest import ALIGN, BLOCK_SIZE, PIECE, Manifest

__all__ = ["Table", "embedding_table"]


@dataclass(frozen=True, slots=True)
class Table:
    """As build/shards/layout.py lays it out: at 4 and 8 bits u8[rows, columns * bits / 8] at
    `offset`, low nibbles first, and f16[rows, columns / 32] at `scales`; at 16 and 32 bits
    f[rows, columns] at `offset`, without scales. Offsets are into the plain file."""

    rows: int
    columns: int
    bits: int
    offset: int
    scales: int | None
    segment: int
    """Plain bytes of each of the file's pieces, but for the last."""

    @property
    def row_bytes(self) -> int:
        return self.columns * self.bits // 8

    @property
    def scale_bytes(self) -> int:
        """Of one row."""
        return 0 if self.scales is None else 2 * self.columns // BLOCK_SIZE

    def stretches(self, row: int) -> Sequence[tuple[int, int]]:
        """(first byte, bytes) of what makes the row: its weights, then its scales."""
        weights = (self.offset + row * self.row_bytes, self.row_bytes)
        if self.scales is None:
            return (weights,)
        return weights, (self.scales + row * self.scale_bytes, self.scale_bytes)


def embedding_table(manifest: Manifest) -> Table | None:
    """None where the file's size is not that of the layout: then only graphs can read it.

    The file holds the table alone, or where head and embedding are tied the last norm before it.
    """
    pieces = -(-manifest.embed.bytes // PIECE)
    size = manifest.embed.bytes - (pieces * TAG if manifest.private else 0)
    columns, bits = manifest.hidden_size, manifest.ends_bits
    offset = _aligned(4 * columns) if manifest.embed == manifest.head else 0
    end = offset + manifest.vocab_size * columns * bits // 8
    scales = None
    if bits <= 8:
        scales = _aligned(end)
        end = scales + manifest.vocab_size * 2 * columns // BLOCK_SIZE
    if end != size:
        return None
    segment = SEGMENT if manifest.private else PIECE
    return Table(manifest.vocab_size, columns, bits, offset, scales, segment)


def _aligned(offset: int) -> int:
    return offset + -offset % ALIGN
