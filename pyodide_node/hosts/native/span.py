"""Blocks of a model in ONNX Runtime, with keys and values that are written in place.

A cache owns two arrays a block, bound to the graph as `past` and as `present` at once: the
attention operator then writes only the new positions and copies nothing. They are as long as
the cache's capacity from the start; the system gives pages to what has been written only.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import onnxruntime

from pyodide_node.errors import EngineError
from pyodide_node.hosts.base import BlobReader, Buffer, Cache
from pyodide_node.hosts.bounds import check_cache, check_step
from pyodide_node.hosts.expansion import expand
from pyodide_node.hosts.sessions import Piece, Sessions
from pyodide_node.hosts.steps import Floats, floats
from pyodide_node.model.manifest import Manifest, Variant

from .runtime import Runtime

__all__ = ["NativeCache", "NativeSpan", "load_span"]


async def load_span(
    runtime: Runtime,
    manifest: Manifest,
    variant: Variant,
    pieces: Sequence[tuple[int, int]],
    blob: BlobReader,
) -> NativeSpan:
    """`blob` is kept: a split at a new border reads the weights again."""

    async def load(first: int, last: int) -> Any:
        graph = manifest.graph(variant, last - first)
        steps = manifest.graphs.variants[variant].expand
        files = {}
        for name, file in manifest.span_blobs(first, last).items():
            content = await blob(file.sha256, file.bytes)
            if steps and name != "rope.bin":
                content = await runtime.call(partial(expand, content, steps.layer))
            files[name] = content
        return await runtime.session(await blob(graph.sha256, graph.bytes), files)

    async def release(session: Any) -> None:
        """It is gone with the last step that holds it."""

    sessions = Sessions(load, release)
    await sessions.load(pieces)
    return NativeSpan(runtime, manifest, sessions, (pieces[0][0], pieces[-1][1]))


class NativeCache:
    """See `base.Cache`."""

    def __init__(
        self, owner: NativeSpan, first: int, last: int, shape: tuple[int, int, int, int]
    ) -> None:
        self.owner = owner
        self.first = first
        self.last = last
        self.held = 0
        """Positions that hold something; a step may begin at most there."""
        self.bindings: dict[Piece[Any], Any] = {}
        """Of the sessions that the last step ran."""
        self._capacity = shape[2]
        # One (key, value) a block. An OrtValue made of an array shares the array's memory.
        self.blocks: list[tuple[Any, ...]] | None = [
            tuple(
                onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32))
                for _ in ("key", "value")
            )
            for _ in range(first, last)
        ]

    @property
    def capacity(self) -> int:
        return self._capacity

    def close(self) -> None:
        self.blocks = None
        self.bindings = {}

    def bind(self, piece: Piece[Any]) -> Any:
        """Keys and values as both the past and the present of `piece`: they never move again."""
        assert self.blocks is not None
        binding = piece.session.io_binding()
        for k, pair in enumerate(self.blocks[piece.first - self.first : piece.last - self.first]):
            for part, value in zip(("key", "value"), pair, strict=True):
                binding.bind_ortvalue_input(f"past_{k}_{part}", value)
                binding.bind_ortvalue_output(f"present_{k}_{part}", value)
        return binding


class NativeSpan:
    """See `base.Span`."""

    def __init__(
        self,
        runtime: Runtime,
        manifest: Manifest,
        sessions: Sessions[Any],
        blocks: tuple[int, int],
    ) -> None:
        self._runtime = runtime
        self._manifest = manifest
        self._sessions = sessions
        self._first, self._last = blocks

    @property
    def first(self) -> int:
        return self._first

    @property
    def last(self) -> int:
        return self._last

    def open_cache(self, first: int, last: int, capacity: int) -> NativeCache:
        m = self._manifest
        check_cache(first, last, capacity, within=(self.first, self.last), context=m.context_length)
        return NativeCache(self, first, last, (1, m.kv_heads, capacity, m.head_dim))

    async def run(self, cache: Cache, hidden: Buffer, position: int, count: int) -> bytes:
        """As `base.Span.run`; a first run over a sub-range may also raise what `blob` raises."""
        if not isinstance(cache, NativeCache) or cache.owner is not self:
            raise EngineError("a cache of another span")
        given = floats(hidden, count, self._manifest.hidden_size).copy()
        pieces = await self._sessions.covering(cache.first, cache.last)
        return await self._runtime.call(lambda: _step(pieces, cache, given, position))

    async def close(self) -> None:
        await self._sessions.close()


def _step(pieces: list[Piece[Any]], cache: NativeCache, given: Floats, position: int) -> bytes:
    """One step, on the engine's thread; the steps before it in the queue have been taken."""
    if cache.blocks is None:
        raise EngineError("the cache has been closed")
    count, width = given.shape
    check_step(cache.held, cache.capacity, position, count)
    # If the run fails half-way, positions behind this one hold nothing to be built upon.
    cache.held = position
    total = position + count
    shape = (1, count, width)
    hidden = _share(given.reshape(shape))
    seqlens = _share(np.array([total - 1], np.int32))
    length = _share(np.array(total, np.int32))
    result = given
    # A session that has been split since must not be kept alive by its binding.
    cache.bindings = {piece: cache.bindings.get(piece) or cache.bind(piece) for piece in pieces}
    for piece, binding in cache.bindings.items():
        binding.bind_ortvalue_input("hidden_in", hidden)
        binding.bind_ortvalue_input("seqlens_k", seqlens)
        binding.bind_ortvalue_input("total_sequence_length", length)
        result = np.empty(shape, np.float32)
        hidden = _share(result)
        binding.bind_ortvalue_output("hidden_out", hidden)
        piece.session.run_with_iobinding(binding)
    answer = result.tobytes()
    floats(answer, count, width)
    cache.held = total
    return answer


def _share(array: Any) -> Any:
    """An OrtValue over the array's own memory."""
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)
