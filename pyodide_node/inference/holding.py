"""The blocks that this node holds: loaded spans, within the caps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from pyodide_node.budget import MEGABYTE, Budget, Reservation
from pyodide_node.delivery.catalog import Model
from pyodide_node.errors import KwaaiNetError
from pyodide_node.hosts.base import BlobReader, Host, Span
from pyodide_node.inference.route import Offer
from pyodide_node.model.footprint import Footprint, best_engine

__all__ = ["Holding"]

_MEASURE_STEPS, _MEASURE_SECONDS = 20, 0.5
"""Steps timed after loading, and when to stop early."""


@dataclass(slots=True)
class _Loaded:
    span: Span
    memory: Reservation


Prepare = Callable[[Footprint, int, int], Awaitable[None]]
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
        rates: Mapping[str, float] | None = None,
        network: float | None = None,
    ) -> None:
        self._host = host
        self._budget = budget
        self._model = model
        self._read = read
        self._prepare = prepare
        self._max_blocks = max_blocks
        self._loaded: list[_Loaded] = []
        self.lock = asyncio.Lock()
        self.spare = 0
        """Bytes that blocks must leave free for what else is to be loaded here."""
        self._rates = dict(rates or {})
        self._network = network

    @property
    def rate(self) -> float:
        """Positions·blocks a second on the engine in use, as measured, or as known before; 0 when
        neither."""
        return self._rates.get(self._host.engine.name, 0.0)

    @property
    def throughput(self) -> float:
        """Positions·blocks a second, as others get them: under the cpu cap of this moment, and
        no more than what can be sent on of them."""
        if not self.rate:
            return 0.0
        rate = self.rate * self._budget.limits.cpu / 100
        if self._network is not None and self.span is not None:
            blocks = self.span[1] - self.span[0]
            rate = min(rate, blocks * self._network / self._model.manifest.hidden_bytes(1))
        return min(1e8, max(1e-3, rate))

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

    @property
    def footprint(self) -> Footprint:
        """What blocks take here, on the engine that is in use."""
        return Footprint(self._model.manifest, self._host.engine.name)

    def room(self) -> int:
        """Blocks that fit in all, while they load and with a session over them."""
        held = sum(loaded.memory.size for loaded in self._loaded)
        left = self._budget.limits.memory * MEGABYTE - self._budget.memory_used
        return self.footprint.room(left + held, self._max_blocks, self.spare)

    def choose_engine(self) -> None:
        """Use the engine that does most with the memory that is free; nothing may be loaded."""
        engine, manifest = self._host.engine, self._model.manifest
        free = self._budget.memory_free
        names = engine.names(manifest)
        engine.use(best_engine(manifest, names, free, self._max_blocks, self.spare))

    def require_room(self) -> int:
        """As `room`, on the engine that leaves most. Raises BudgetExceeded when not even one block
        fits."""
        self.choose_engine()
        room = self.room()
        if not room:
            one = self.footprint.serving(1, self.spare)
            self._budget.reserve(one, "one block of the model and a session").release()
        return room

    async def load(self, first: int, last: int) -> None:
        """Raises BudgetExceeded, EngineError, IntegrityError, Unreachable."""
        footprint, what = self.footprint, f"blocks {first} to {last}"
        if self._prepare is not None:
            await self._prepare(footprint, first, last)
        working = 0 if self._loaded else footprint.working("layer")
        with self._budget.reserved(max(footprint.loading(first, last), working), what):
            span = await self._host.engine.load_span(self._model.manifest, first, last, self._read)
        memory = self._budget.reserve(footprint.span(first, last) + working, what)
        self._loaded.append(_Loaded(span, memory))

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
        each = self.footprint.session(capacity, 1)
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
        each = self.footprint.session(1, self.span[1] - self.span[0])
        return min(self._budget.memory_free // each, 2**31 - 1)

    async def measure(
        self, steps: int = _MEASURE_STEPS, seconds: float = _MEASURE_SECONDS
    ) -> float:
        """Time single positions through the announced span; positions·blocks a second."""
        span = self._loaded[0].span
        blocks, manifest = span.last - span.first, self._model.manifest
        hidden = bytes(manifest.hidden_bytes(1))
        with self._budget.reserved(self.footprint.session(steps + 1, blocks), "measuring"):
            cache = span.open_cache(span.first, span.last, steps + 1)
            try:
                await span.run(cache, hidden, 0, 1)  # the first run compiles
                begun = self._host.clock.monotonic()
                done, spent = 0, 0.0
                while done < steps and spent < seconds:
                    await span.run(cache, hidden, 1 + done, 1)
                    done += 1
                    spent = self._host.clock.monotonic() - begun
            finally:
                cache.close()
        self._rates[self._host.engine.name] = blocks * done / max(spent, 1e-6)
        return self.rate
