"""Choices drawn from bytes, so that a fuzzer that changes a byte changes a choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

__all__ = ["Feed"]

_T = TypeVar("_T")


class Feed:
    """Where the bytes have run out, every choice is the first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken

    def number(self, below: int) -> int:
        size = (below.bit_length() + 7) // 8
        return int.from_bytes(self.take(size)) % below

    def pick(self, choices: Sequence[_T]) -> _T:
        return choices[self.number(len(choices))]

    def chunk(self) -> bytes:
        """Up to 255 bytes."""
        return self.take(self.number(256))
