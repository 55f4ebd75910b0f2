"""The engine sessions that a span is made of."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pyodide_node.errors import EngineError

__all__ = ["Piece", "Sessions"]

S = TypeVar("S")


@dataclass(slots=True, eq=False)
class Piece(Generic[S]):
    """One session over blocks [first, last)."""

    first: int
    last: int
    session: S


class Sessions(Generic[S]):
    """Pieces of a span, loaded one after another and split where somebody asks for a part.

    Caches outlive a split: keys and values are kept per block.
    """

    def __init__(
        self,
        load: Callable[[int, int], Awaitable[S]],
        release: Callable[[S], Awaitable[None]],
    ) -> None:
        self._load = load
        self._release = release
        self._pieces: list[Piece[S]] = []
        self._missing: list[tuple[int, int]] = []
        """Ranges that a split has taken apart and not loaded again yet."""
        self._leaving: list[Piece[S]] = []
        self._coverings: dict[tuple[int, int], list[Piece[S]]] = {}
        self._changing = asyncio.Lock()

    async def load(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Load each in turn; when one fails nothing stays loaded."""
        async with self._changing:
            self._missing = list(ranges)
            try:
                await self._load_missing()
            except BaseException:
                await self._drop_all()
                raise

    async def covering(self, first: int, last: int) -> list[Piece[S]]:
        """The pieces of blocks [first, last), the same list until they change. Who queues work for
        them before the next await has it done before they are given back.

        Raises EngineError once closed, or what loading raises.
        """
        async with self._changing:
            for border in (first, last):
                await self._split(border)
            await self._load_missing()
            if (first, last) not in self._coverings:
                self._coverings[first, last] = [
                    piece for piece in self._pieces if first <= piece.first and piece.last <= last
                ]
            found = self._coverings[first, last]
        if not found:
            raise EngineError("the span has been closed")
        return found

    async def close(self) -> None:
        async with self._changing:
            await self._drop_all()

    async def _split(self, border: int) -> None:
        for begin, end in self._missing:
            if begin < border < end:
                self._missing.remove((begin, end))
                self._missing += [(begin, border), (border, end)]
                return
        for piece in self._pieces:
            if piece.first < border < piece.last:
                self._pieces.remove(piece)
                self._leaving.append(piece)
                self._coverings.clear()
                self._missing += [(piece.first, border), (border, piece.last)]
                return

    async def _load_missing(self) -> None:
        while self._missing:
            first, last = self._missing[0]
            session = await self._load(first, last)
            self._pieces.append(Piece(first, last, session))
            self._pieces.sort(key=lambda piece: piece.first)
            self._missing.pop(0)
            # Not before there is another one: with its last session ONNX Runtime drops the GPU
            # device, and with that every cache. Not later either, so that memory holds.
            await self._release_all(self._leaving)

    async def _drop_all(self) -> None:
        self._missing = []
        self._coverings.clear()
        await self._release_all(self._leaving)
        await self._release_all(self._pieces)

    async def _release_all(self, pieces: list[Piece[S]]) -> None:
        while pieces:
            await self._release(pieces.pop().session)
