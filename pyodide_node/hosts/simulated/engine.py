"""The engine of a simulated host: real results, virtual time, faults on demand."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pyodide_node.errors import EngineError
from pyodide_node.hosts.base import BlobReader, Buffer, Cache, Candidates, EngineName, PieceReader
from pyodide_node.hosts.bounds import check_cache, check_ids, check_sampling, check_step
from pyodide_node.hosts.expansion import widened_rows
from pyodide_node.hosts.rows import Rows, require_table
from pyodide_node.hosts.steps import Floats, floats
from pyodide_node.model.manifest import Blob, Manifest

from .model import BOS, BOS_TEXT, EOS, EOS_TEXT
from .network import SimulatedNetwork
from .transformer import HEAD_DIM, Block

__all__ = ["EngineFaults", "SimulatedCache", "SimulatedEnds", "SimulatedEngine", "SimulatedSpan"]


@dataclass(slots=True)
class EngineFaults:
    """May be changed at any time; the next run feels it."""

    refuses: bool = False
    """Nothing loads."""
    crashes: bool = False
    """Every run fails."""
    nan: bool = False
    """Results hold NaN."""
    lie: float = 0.0
    """Added to one value of every result: finite, plausible, wrong."""
    slow: float = 1.0
    """Every duration is multiplied by this."""


class SimulatedEngine:
    """See `base.Engine`. A position in one block takes `seconds` of virtual time.

    `positions` counts the positions times blocks that it has run.
    """

    name: EngineName = "simulated"

    def __init__(self, network: SimulatedNetwork, here: str, *, seconds: float = 0.001) -> None:
        self.faults = EngineFaults()
        self.seconds = seconds
        self.positions = 0
        self._network = network
        self._here = here
        self._busy = asyncio.Lock()

    def names(self, manifest: Manifest) -> tuple[EngineName, ...]:
        return ("simulated",)

    def use(self, name: EngineName) -> None:
        self.name = name

    async def load_span(
        self, manifest: Manifest, first: int, last: int, blob: BlobReader
    ) -> SimulatedSpan:
        self._check()
        if not manifest.has_span(first, last):
            raise EngineError(f"no blocks [{first}, {last}) in {manifest.name}")
        await _read(blob, manifest.graph("gpu-fp32", last - first))
        await _read(blob, manifest.rope)
        blocks = [
            Block(await _read(blob, layer), manifest.hidden_size)
            for layer in manifest.layers[first:last]
        ]
        return SimulatedSpan(self, manifest, first, blocks)

    async def load_ends(
        self,
        manifest: Manifest,
        blob: BlobReader,
        name: EngineName | None = None,
        rows: PieceReader | None = None,
    ) -> SimulatedEnds:
        self._check()
        for file in (
            manifest.tokenizer,
            manifest.graph("gpu-fp32", "embed"),
            manifest.graph("gpu-fp32", "head"),
        ):
            await _read(blob, file)
        shape = (manifest.vocab_size, manifest.hidden_size)
        embed: Floats | Rows
        if rows is not None:
            embed = Rows(require_table(manifest), rows, widened_rows)
        else:
            embed = np.frombuffer(await _read(blob, manifest.embed), "<f4").reshape(shape)
        head = np.frombuffer(await _read(blob, manifest.head), "<f4").reshape(shape)
        return SimulatedEnds(self, manifest, embed, head)

    async def work(self, positions: int) -> None:
        """Take the time of `positions` times blocks, after all that was asked for before."""
        async with self._busy:
            await asyncio.sleep(positions * self.seconds * self.faults.slow)
        self.positions += positions
        if self.faults.crashes or not self._network.alive(self._here):
            raise EngineError("the simulated engine crashed")

    def tamper(self, result: Floats) -> bytes:
        """`result`, as the faults would have it."""
        if self.faults.nan or self.faults.lie:
            result = result.copy()
            result.flat[0] = np.nan if self.faults.nan else result.flat[0] + self.faults.lie
        return result.astype("<f4").tobytes()

    def _check(self) -> None:
        if self.faults.refuses or not self._network.alive(self._here):
            raise EngineError("the simulated engine refuses to load")


class SimulatedCache:
    """See `base.Cache`."""

    def __init__(self, owner: SimulatedSpan, first: int, last: int, capacity: int) -> None:
        self.owner = owner
        self.first = first
        self.last = last
        self.held = 0
        self.closed = False
        self.kv = np.zeros((last - first, 2, capacity, HEAD_DIM))

    @property
    def capacity(self) -> int:
        return self.kv.shape[2]

    def close(self) -> None:
        self.closed = True


class SimulatedSpan:
    """See `base.Span`."""

    def __init__(
        self, engine: SimulatedEngine, manifest: Manifest, first: int, blocks: list[Block]
    ) -> None:
        self._engine = engine
        self._manifest = manifest
        self._first = first
        self._blocks = blocks
        self._closed = False

    @property
    def first(self) -> int:
        return self._first

    @property
    def last(self) -> int:
        return self._first + len(self._blocks)

    def open_cache(self, first: int, last: int, capacity: int) -> SimulatedCache:
        context = self._manifest.context_length
        check_cache(first, last, capacity, within=(self.first, self.last), context=context)
        return SimulatedCache(self, first, last, capacity)

    async def run(self, cache: Cache, hidden: Buffer, position: int, count: int) -> bytes:
        if not isinstance(cache, SimulatedCache) or cache.owner is not self:
            raise EngineError("a cache of another span")
        rows = floats(hidden, count, self._manifest.hidden_size).copy()
        await self._engine.work(count * (cache.last - cache.first))
        # Checked after the wait: the steps queued before this one have moved the cache.
        if self._closed or cache.closed:
            raise EngineError("the span or its cache has been closed")
        check_step(cache.held, cache.capacity, position, count)
        blocks = self._blocks[cache.first - self._first : cache.last - self._first]
        for row in range(count):
            for block, kv in zip(blocks, cache.kv, strict=True):
                rows[row] = block.step(rows[row], kv, position + row)
        cache.held = position + count
        return self._engine.tamper(rows)

    async def close(self) -> None:
        self._closed = True


class SimulatedEnds:
    """See `base.Ends`. A token is a byte."""

    special_tokens: Sequence[str] = (BOS_TEXT, EOS_TEXT)

    def __init__(
        self, engine: SimulatedEngine, manifest: Manifest, embed: Floats | Rows, head: Floats
    ) -> None:
        self._engine = engine
        self._manifest = manifest
        self._embed = embed
        self._head = head.astype(np.float64)
        self._closed = False

    def encode(self, text: str) -> list[int]:
        known = {BOS_TEXT: [BOS], EOS_TEXT: [EOS]}
        pieces = re.split(f"({BOS_TEXT}|{EOS_TEXT})", text)
        return [one for piece in pieces for one in known.get(piece) or piece.encode()]

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(one for one in ids if one < 256).decode(errors="replace")

    async def prepare(self, ids: Sequence[int]) -> None:
        check_ids(ids, self._manifest.vocab_size)
        if isinstance(self._embed, Rows):
            await self._embed.prepare(ids)

    async def embed(self, ids: Sequence[int]) -> bytes:
        check_ids(ids, self._manifest.vocab_size)
        await self._work(0)
        if isinstance(self._embed, Rows):
            return await self._embed.of(ids)
        return self._embed[list(ids)].astype("<f4").tobytes()

    async def head(self, hidden: Buffer, temperature: float, k: int) -> Candidates:
        row = floats(hidden, 1, self._manifest.hidden_size)[0]
        check_sampling(temperature, k)
        await self._work(1)
        logits = self._head @ row / temperature
        # A stable sort of the negated logits: equal values come lowest id first.
        ids = np.argsort(-logits, kind="stable")[:k]
        top = float(logits.max())
        return Candidates(
            ids=ids.tolist(),
            values=logits[ids].tolist(),
            logsumexp=top + float(np.log(np.exp(logits - top).sum())),
        )

    async def _work(self, positions: int) -> None:
        if self._closed:
            raise EngineError("the model has been closed")
        await self._engine.work(positions)

    async def close(self) -> None:
        self._closed = True


async def _read(blob: BlobReader, file: Blob) -> bytes:
    data: bytes = await blob(file.sha256, file.bytes)
    return data
