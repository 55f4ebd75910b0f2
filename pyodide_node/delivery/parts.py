"""The parts of a model, numbered alike by everybody who has its manifest.

A part is a piece of a file, or the root block that lists the pieces of a file that has several
(see pieces.py). Numbers go through the files in the manifest's order, each root before its pieces.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pyodide_node.model.manifest import PIECE, Blob, Manifest
from pyodide_node.model.pieces import piece_sizes, pieces_of, root_bytes

__all__ = ["Part", "Parts", "is_set"]


@dataclass(frozen=True, slots=True)
class Part:
    number: int
    sha256: str
    size: int
    blob: Blob
    offset: int | None
    """Where in the file it lies; None: it is a file of its own, under its own hash."""
    root: bool = False


class Parts:
    """Which parts there are, and the hashes of those whose roots have been read."""

    def __init__(self, manifest: Manifest) -> None:
        self._blobs = list(manifest.blobs().values())
        self._by_hash = {blob.sha256: index for index, blob in enumerate(self._blobs)}
        self._pieces: dict[str, list[Part]] = {}
        self._firsts: list[int] = []
        self.count = 0
        for blob in self._blobs:
            self._firsts.append(self.count)
            if blob.dag is None:
                self._pieces[blob.sha256] = [
                    Part(self.count, blob.sha256, blob.bytes, blob, None),
                ]
            self.count += len(piece_sizes(blob.bytes)) + (blob.dag is not None)

    def root(self, blob: Blob) -> Part | None:
        """The part that must be read before the file's pieces are known; None for one piece."""
        if blob.dag is None:
            return None
        first = self._firsts[self._by_hash[blob.sha256]]
        return Part(first, blob.dag, root_bytes(blob.bytes), blob, None, root=True)

    def pieces(self, blob: Blob) -> list[Part] | None:
        """The file's pieces in order; None until its root has been learned."""
        return self._pieces.get(blob.sha256)

    def learn(self, blob: Blob, root: bytes) -> list[Part]:
        """Raises IntegrityError for a block that is not the file's root."""
        first = self._firsts[self._by_hash[blob.sha256]] + 1
        sizes = piece_sizes(blob.bytes)
        self._pieces[blob.sha256] = [
            Part(first + index, digest.hex(), size, blob, index * PIECE)
            for index, (digest, size) in enumerate(zip(pieces_of(root, blob), sizes, strict=True))
        ]
        return self._pieces[blob.sha256]

    def part(self, number: int) -> Part | None:
        """None for a number that there is not, or whose file's root has not been learned."""
        if not 0 <= number < self.count:
            return None
        index = bisect_right(self._firsts, number) - 1
        blob, inside = self._blobs[index], number - self._firsts[index]
        root, pieces = self.root(blob), self.pieces(blob)
        if root is not None and inside == 0:
            return root
        return pieces[inside - (root is not None)] if pieces is not None else None

    def blob(self, sha256: str) -> Blob:
        return self._blobs[self._by_hash[sha256]]

    def blobs(self) -> Sequence[Blob]:
        return self._blobs

    def bitmap(self, has: Callable[[str], bool]) -> bytes:
        """The bitmap of the parts whose hash `has` is true of."""
        return self.numbers(part.number for part in self._known() if has(part.sha256))

    def numbers(self, numbers: Iterable[int]) -> bytes:
        """The bitmap of these parts, one bit each, lowest first."""
        bits = bytearray((self.count + 7) // 8)
        for number in numbers:
            bits[number >> 3] |= 1 << (number & 7)
        return bytes(bits)

    def _known(self) -> Iterable[Part]:
        for blob in self._blobs:
            root = self.root(blob)
            if root is not None:
                yield root
            yield from self.pieces(blob) or ()


def is_set(bitmap: bytes, number: int) -> bool:
    """Whether the part's bit is set; a short bitmap has no more parts."""
    at = number >> 3
    return at < len(bitmap) and bool(bitmap[at] >> (number & 7) & 1)
