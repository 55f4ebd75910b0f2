"""Tokenizer, embedding and head on CPython."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer

from pyodide_node.errors import EngineError
from pyodide_node.hosts.base import BlobReader, Buffer, Candidates, PieceReader
from pyodide_node.hosts.bounds import check_ids, check_sampling
from pyodide_node.hosts.expansion import expand, widened_rows
from pyodide_node.hosts.rows import Rows, require_table
from pyodide_node.hosts.steps import floats
from pyodide_node.model.manifest import ExpandStep, Manifest, Variant

from .runtime import Runtime

__all__ = ["NativeEnds", "load_ends"]


async def load_ends(
    runtime: Runtime,
    manifest: Manifest,
    variant: Variant,
    blob: BlobReader,
    rows: PieceReader | None = None,
) -> NativeEnds:
    async def session(kind: Literal["embed", "head"], steps: list[ExpandStep] | None) -> Any:
        weights, graph = getattr(manifest, kind), manifest.graph(variant, kind)
        content = await blob(weights.sha256, weights.bytes)
        if steps:
            content = await runtime.call(lambda: expand(content, steps))
        files = {f"{kind}.bin": content}
        return await runtime.session(await blob(graph.sha256, graph.bytes), files)

    described: bytes = await blob(manifest.tokenizer.sha256, manifest.tokenizer.bytes)
    try:
        tokenizer = Tokenizer.from_str(bytes(described).decode())
    except Exception as error:  # the library raises Exception itself
        raise EngineError(f"the model's tokenizer does not load: {error}") from error
    expansion = manifest.graphs.variants[variant].expand
    # The head first: it is the larger, and so is what it needs while it loads.
    head = await session("head", expansion.head if expansion else None)
    embed: Any = None
    if rows is not None:
        embed = Rows(require_table(manifest), rows, widened_rows)
    else:
        embed = await session("embed", None)
    return NativeEnds(runtime, manifest, tokenizer, embed, head)


class NativeEnds:
    """See `base.Ends`."""

    def __init__(
        self, runtime: Runtime, manifest: Manifest, tokenizer: Tokenizer, embed: Any, head: Any
    ) -> None:
        """`embed` is a session, or Rows."""
        self._runtime = runtime
        self._manifest = manifest
        self._tokenizer = tokenizer
        self._embed = embed
        self._head = head

    @property
    def special_tokens(self) -> list[str]:
        added = self._tokenizer.get_added_tokens_decoder().values()
        return [token.content for token in added if token.special]

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    async def prepare(self, ids: Sequence[int]) -> None:
        check_ids(ids, self._manifest.vocab_size)
        if isinstance(self._open(self._embed), Rows):
            await self._embed.prepare(ids)

    async def embed(self, ids: Sequence[int]) -> bytes:
        check_ids(ids, self._manifest.vocab_size)
        if isinstance(self._open(self._embed), Rows):
            return bytes(await self._embed.of(ids))
        feeds = {"input_ids": np.array([ids], np.int64)}
        (hidden,) = await self._runtime.call(lambda: self._open(self._embed).run(None, feeds))
        return bytes(hidden.astype("<f4", copy=False).tobytes())

    async def head(self, hidden: Buffer, temperature: float, k: int) -> Candidates:
        check_sampling(temperature, k)
        row = floats(hidden, 1, self._manifest.hidden_size).copy()
        feeds = {
            "hidden_in": row[None],
            "temperature": np.array([temperature], np.float32),
            "k": np.array([min(k, self._manifest.vocab_size)], np.int64),
        }
        names = ["top_values", "top_indices", "logsumexp"]
        values, ids, total = await self._runtime.call(
            lambda: self._open(self._head).run(names, feeds)
        )
        return Candidates(ids=ids[0].tolist(), values=values[0].tolist(), logsumexp=float(total[0]))

    async def close(self) -> None:
        self._embed = self._head = None

    @staticmethod
    def _open(session: Any) -> Any:
        if session is None:
            raise EngineError("the model has been closed")
        return session
