"""The blocks that this node holds: loaded spans, within the caps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pyodide_node.budget import MEGABYTE, Budget, Reservation
from pyodide_node.errors import BudgetExceeded, KwaaiNetError
from pyodide_node.hosts.base import BlobReader, Host, Span
from pyodide_node.inference.catalog import Model
from pyodide_node.inference.manifest import Variant
from pyodide_node.inference.route import Offer

__all__ = ["Holding"]

_LOADING = 2
"""While a span loads, its weights are in memory twice: as files and in the engine."""
_MEASURE_STEPS, _MEASURE_SECONDS = 8, 0.5
"""Steps timed after loading, and when to stop early."""


@dataclass(slots=True)
class _Loaded:
    span: Span
    memory: Reservation


Prepare = Callable[[int, int, Variant], Awaitable[None]]
"""Called with a span before it is loaded, so that its files come all at once."""


class Holding:
    """Spans of one model. The first is the one announced; others fill gaps for this node's own
    answers. `lock` is held while spans change, and by whoever computes with one."""

    def __init__(
        self,
        host: Host,
        budget: Budget,
        model: Model,
        read: BlobReader,
        max_blocks: int | None,
        *,
        prepare: Prepare | None = None,
    ) -> None:
        self._host = host
        self._budget = budget
        self._model = model
        self._read = read
        self._prepare = prepare
        self._max_blocks = max_blocks
        self._loaded: list[_Loaded] = []
        self.lock = asyncio.Lock()
        self._rate = 0.0

    @property
    def throughput(self) -> float:
        """Positions·blocks a second, as others get them: under the cpu cap of this moment."""
        if not self._rate:
            return 0.0
        return min(1e8, max(1e-3, self._rate * self._budget.limits.cpu / 100))

    @property
    def over_cap(self) -> bool:
        """Whether the memory cap was turned below what is in use."""
        return self._budget.memory_used > self._budget.limits.memory * MEGABYTE

    @property
    def span(self) -> tuple[int, int] | None:
        """The blocks announced."""
        if not self._loaded:
            return None
        return self._loaded[0].span.first, self._loaded[0].span.last

    def find(self, first: int, last: int) -> Span | None:
        """The span that has blocks [first, last), if one does."""
        for loaded in self._loaded:
            if loaded.span.first <= first < last <= loaded.span.last:
                return loaded.span
        return None

    def room(self) -> int:
        """Blocks that fit in all: weights twice while loading, and one full context of KV."""
        manifest = self._model.manifest
        each = self._weights(1) * _LOADING + self._kv_bytes(manifest.context_length, 1)
        held = sum(loaded.memory.size for loaded in self._loaded)
        left = self._budget.limits.memory * MEGABYTE - self._budget.memory_used
        room = max(0, left + held) // each
        most = manifest.blocks if self._max_blocks is None else self._max_blocks
        return min(room, most, manifest.blocks)

    def require_room(self) -> int:
        """As `room`, with weights held compactly if none would fit otherwise.

        Raises BudgetExceeded when not even one block fits.
        """
        if not self.room():
            self._host.engine.compact()
        if not self.room():
            one = self._weights(1) * _LOADING
            self._budget.reserve(one, "one block of the model").release()
            raise BudgetExceeded(
                "no block of the model fits beside one session; raise memory in"
                " data-max-resources or choose a smaller model",
                resource="memory",
                asked=one,
                free=self._budget.memory_free,
            )
        return self.room()

    async def load(self, first: int, last: int) -> None:
        """Raises BudgetExceeded, EngineError, IntegrityError, Unreachable."""
        weights = self._weights(last - first)
        what = f"blocks {first} to {last}"
        if self._prepare is not None:
            await self._prepare(first, last, self._host.engine.variant)
        with self._budget.reserved(weights * _LOADING, what):
            span = await self._host.engine.load_span(self._model.manifest, first, last, self._read)
        self._loaded.append(_Loaded(span, self._budget.reserve(weights, what)))

    async def cover(self, first: int, last: int) -> bool:
        """Load blocks that nobody else serves; whether there is now more here than before."""
        if self.find(first, last) is not None:
            return False
        async with self.lock:
            if self.find(first, last) is not None:
                return True  # another answer was missing them too
            held = sum(one.span.last - one.span.first for one in self._loaded)
            if held + last - first > self.room():
                return False
            try:
                await self.load(first, last)
                if not self.throughput:
                    await self.measure()
            except KwaaiNetError:
                return False
            return True

    async def unload(self) -> None:
        for loaded in self._loaded:
            await loaded.span.close()
            loaded.memory.release()
        self._loaded.clear()

    def offers(self, capacity: int) -> list[Offer]:
        """What this node can run for itself, at no distance, with room for so many positions."""
        each = self._kv_bytes(capacity, 1)
        return [
            Offer(
                peer=self._host.keys.public_key,
                first=loaded.span.first,
                last=loaded.span.last,
                seconds_per_block=1 / self.throughput,
                latency=0.0,
            )
            for loaded in self._loaded
            if self.throughput
            and each * (loaded.span.last - loaded.span.first) <= self._budget.memory_free
        ]

    def free_positions(self) -> int:
        """Positions of KV cache that new sessions over the announced span may claim."""
        if self.span is None:
            return 0
        each = self._kv_bytes(1, self.span[1] - self.span[0])
        return min(self._budget.memory_free // each, 2**31 - 1)

    async def measure(self) -> None:
        """Time single positions through the announced span."""
        span = self._loaded[0].span
        blocks, manifest = span.last - span.first, self._model.manifest
        hidden = bytes(manifest.hidden_bytes(1))
        with self._budget.reserved(self._kv_bytes(_MEASURE_STEPS + 1, blocks), "measuring"):
            cache = span.open_cache(span.first, span.last, _MEASURE_STEPS + 1)
            try:
                await span.run(cache, hidden, 0, 1)  # the first run compiles
                begun = self._host.clock.monotonic()
                steps, spent = 0, 0.0
                while steps < _MEASURE_STEPS and spent < _MEASURE_SECONDS:
                    await span.run(cache, hidden, 1 + steps, 1)
                    steps += 1
                    spent = self._host.clock.monotonic() - begun
            finally:
                cache.close()
        self._rate = blocks * steps / max(spent, 1e-6)

    def _weights(self, blocks: int) -> int:
        return self._model.manifest.span_bytes(0, blocks, self._host.engine.variant)

    def _kv_bytes(self, positions: int, blocks: int) -> int:
        return self._model.manifest.kv_bytes(positions, blocks, self._host.engine.variant)
