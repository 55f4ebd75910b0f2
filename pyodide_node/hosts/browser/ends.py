"""Tokenizer, embedding and head in a tab."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from pyodide.ffi import to_js

from pyodide_node.errors import EngineError
from pyodide_node.hosts.base import Buffer, Candidates, PieceReader
from pyodide_node.hosts.bounds import check_ids, check_sampling
from pyodide_node.hosts.rows import Rows
from pyodide_node.model.manifest import Manifest
from pyodide_node.model.table import Table

from .errors import awaited, translated

__all__ = ["BrowserEnds"]


class BrowserEnds:
    """See `base.Ends`."""

    def __init__(self, js: Any, manifest: Manifest, tokenizer: Any, embed: Any, head: Any) -> None:
        """`embed` is a session, or Rows."""
        self._js = js
        self._manifest = manifest
        self._tokenizer = tokenizer
        self._embed = embed
        self._head = head

    @staticmethod
    def tokenizer(bridge: Any, described: Any) -> Any:
        with translated(EngineError):
            return bridge.tokenizer(to_js(described))

    @property
    def special_tokens(self) -> list[str]:
        return [str(text) for text in self._tokenizer.specialTokens]

    def encode(self, text: str) -> list[int]:
        with translated(EngineError):
            return list(self._tokenizer.encode(text).to_py())

    def decode(self, ids: Sequence[int]) -> str:
        with translated(EngineError):
            return str(self._tokenizer.decode(to_js(list(ids))))

    @staticmethod
    def rows(bridge: Any, table: Table, piece: PieceReader) -> Rows:
        def widen(weights: Buffer, scales: Buffer, table: Table) -> bytes:
            made: bytes = bridge.rows(weights, scales, table.bits).to_bytes()
            return made

        return Rows(table, piece, widen)

    async def prepare(self, ids: Sequence[int]) -> None:
        check_ids(ids, self._manifest.vocab_size)
        if isinstance(self._open(self._embed), Rows):
            await self._embed.prepare(ids)

    async def embed(self, ids: Sequence[int]) -> bytes:
        check_ids(ids, self._manifest.vocab_size)
        if isinstance(self._open(self._embed), Rows):
            looked_up: bytes = await self._embed.of(ids)
            return looked_up
        step = self._js.embed(self._open(self._embed), array("q", ids))
        hidden: bytes = (await awaited(step, EngineError)).to_bytes()
        return hidden

    async def head(self, hidden: Buffer, temperature: float, k: int) -> Candidates:
        check_sampling(temperature, k)
        if memoryview(hidden).nbytes != self._manifest.hidden_bytes(1):
            raise EngineError("the head takes one hidden state")
        k = min(k, self._manifest.vocab_size)
        step = self._js.head(self._open(self._head), hidden, temperature, k)
        numbers = array("d", (await awaited(step, EngineError)).to_bytes())
        return Candidates(
            logsumexp=numbers[0],
            values=numbers[1 : 1 + k].tolist(),
            ids=[int(one) for one in numbers[1 + k :]],
        )

    async def close(self) -> None:
        embed, head = self._embed, self._head
        self._embed = self._head = None
        for session in (embed, head):
            if session is not None and not isinstance(session, Rows):
                await awaited(self._js.release(session), EngineError)

    @staticmethod
    def _open(session: Any) -> Any:
        if session is None:
            raise EngineError("the model has been closed")
        return session
