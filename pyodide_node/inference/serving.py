"""Runs blocks for others, and for this node itself: loads a span, announces it, works its queue.

The shell around `Stage`, `placement` and the engine. One step runs at a time: an engine's
sessions share one processor, and the cpu cap counts from one place.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from pyodide_node.budget import Budget, Reservation
from pyodide_node.config import NodeConfig
from pyodide_node.errors import BudgetExceeded, KwaaiNetError, ProtocolError, StageFailed
from pyodide_node.hosts.base import Buffer, Host, Span
from pyodide_node.inference.catalog import BlobFetcher, Model
from pyodide_node.inference.placement import Served, choose_span, should_move
from pyodide_node.inference.route import Offer
from pyodide_node.inference.stage import Stage, StageSession, Work
from pyodide_node.mesh.announcement import ANNOUNCE_EVERY, Announcement, announce
from pyodide_node.mesh.mesh import Mesh
from pyodide_node.mesh.paths import Path
from pyodide_node.wire.messages import (
    CloseSession,
    Message,
    OpenSession,
    Result,
    SessionOpened,
    StageError,
    StageReport,
    Step,
)
from pyodide_node.wire.tensors import last_row

__all__ = ["Serving"]

_LOADING = 2
"""While a span loads, its weights are in memory twice: as files and in the engine."""
_MEASURE_STEPS, _MEASURE_SECONDS = 8, 0.5
"""Steps timed after loading, and when to stop early."""
_SETTLE = (1.0, 3.0)
"""Seconds from a change in the directory to asking whether to move: different at each node, so
that two do not fill the same gap."""
_REPORT_EVERY = 1.0
_HOUSEKEEPING = 30.0


@dataclass(slots=True)
class _Loaded:
    span: Span
    memory: Reservation


@dataclass(slots=True)
class ServedTotals:
    """For the meter: work done for others since the start."""

    tokens: int = 0
    sessions: int = 0


@dataclass(slots=True)
class _Seen:
    path: Path = "local"
    reported: float = -1e9


class Serving:
    """What this node does for one model. `changed()` is called when its span changes."""

    def __init__(
        self,
        host: Host,
        mesh: Mesh,
        budget: Budget,
        config: NodeConfig,
        changed: Callable[[], None],
    ) -> None:
        self._host = host
        self._mesh = mesh
        self._budget = budget
        self._config = config
        self._changed = changed
        self._model: Model | None = None
        self._fetch: BlobFetcher | None = None
        self._loaded: list[_Loaded] = []
        self._stage = Stage(0)
        self._seen: dict[tuple[bytes, int], _Seen] = {}
        self._throughput = 0.0
        self._work_waits = asyncio.Event()
        self._directory_changed = asyncio.Event()
        self._loading = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._tie = int.from_bytes(host.keys.public_key[:4], "big")
        self._random = random.Random(host.keys.public_key)  # noqa: S311 - spreads moves
        self.totals = ServedTotals()

    @property
    def span(self) -> tuple[int, int] | None:
        """The blocks announced."""
        if not self._loaded:
            return None
        return self._loaded[0].span.first, self._loaded[0].span.last

    @property
    def sessions(self) -> int:
        return len(self._stage)

    async def start(self, model: Model, fetch: BlobFetcher) -> None:
        """Choose a span that fits, load it, announce it. Raises BudgetExceeded, EngineError."""
        self._model, self._fetch = model, fetch
        self._stage = Stage(model.manifest.hidden_size)
        room = self.room()
        if room < 1:
            one = self._weights(1) * _LOADING
            self._budget.reserve(one, "one block of the model").release()
            raise BudgetExceeded("no block of the model fits", resource="memory")
        first, last = choose_span(model.manifest.blocks, room, self._others(), self._tie)
        await self._load(first, last)
        self._throughput = await self._measure()
        self._tasks = [
            asyncio.create_task(self._run(), name="stage"),
            asyncio.create_task(self._announce(), name="announce"),
            asyncio.create_task(self._settle(), name="placement"),
            asyncio.create_task(self._housekeep(), name="stage housekeeping"),
        ]

    def room(self) -> int:
        """Blocks that fit: weights twice while loading, and one full context of KV."""
        assert self._model is not None
        manifest = self._model.manifest
        each = self._weights(1) * _LOADING + manifest.kv_bytes(manifest.context_length, 1)
        held = sum(loaded.memory.size for loaded in self._loaded)
        room = (self._budget.memory_free + held) // each
        return min(room, self._config.max_blocks or manifest.blocks, manifest.blocks)

    def offers(self) -> list[Offer]:
        """What this node can run for itself, at no distance."""
        return [
            Offer(
                peer=self._host.keys.public_key,
                first=loaded.span.first,
                last=loaded.span.last,
                seconds_per_block=1 / self._throughput,
                latency=0.0,
            )
            for loaded in self._loaded
            if self._throughput
        ]

    async def cover(self, first: int, last: int) -> bool:
        """Load blocks that nobody else serves, if the caps allow; for an asker without a route."""
        async with self._loading:
            if any(one.span.first <= first and last <= one.span.last for one in self._loaded):
                return True
            held = sum(one.span.last - one.span.first for one in self._loaded)
            if self._model is None or held + last - first > self.room():
                return False
            try:
                await self._load(first, last)
            except (BudgetExceeded, KwaaiNetError):
                return False
            return True

    def directory_changed(self) -> None:
        self._directory_changed.set()

    def peer_left(self, peer: bytes) -> None:
        self._stage.drop_peer(peer)

    def take(self, peer: bytes, message: Message, payload: Buffer, path: Path) -> None:
        """A message of an asker or of the stage before."""
        match message:
            case OpenSession():
                self._open(peer, message)
            case Step(session, hop):
                self._seen.setdefault((session, hop), _Seen()).path = path
                self._step(peer, message, payload)
            case CloseSession(session):
                self._stage.close(peer, session)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._unload()

    # --- sessions -------------------------------------------------------------------------

    def _open(self, peer: bytes, message: OpenSession) -> None:
        try:
            session = self._admit(peer, message)
        except (StageFailed, BudgetExceeded) as error:
            self._refuse(peer, message.session, message.hop, error)
            return
        self._stage.add(session)
        if peer != self._host.keys.public_key:
            self.totals.sessions += 1
        self._mesh.send(peer, SessionOpened(message.session, message.hop))

    def _admit(self, peer: bytes, message: OpenSession) -> StageSession:
        model = self._model
        if model is None or message.model.hex() != model.id:
            raise StageFailed("this node does not serve that model", reason="model")
        first, last = message.first, message.last
        span = next(
            (one.span for one in self._loaded if one.span.first <= first < last <= one.span.last),
            None,
        )
        if span is None or message.capacity > model.manifest.context_length:
            raise StageFailed("this node does not serve these blocks", reason="moved")
        self._stage.check_opening(peer, message)
        size = model.manifest.kv_bytes(message.capacity, last - first)
        memory = self._budget.reserve(size, "a session")
        try:
            cache = span.open_cache(first, last, message.capacity)
        except KwaaiNetError as error:
            memory.release()
            raise StageFailed(str(error), reason="engine") from error
        return StageSession(peer, message, cache, memory.release, self._host.clock.monotonic())

    def _step(self, peer: bytes, message: Step, payload: Buffer) -> None:
        try:
            self._stage.step(peer, message, payload, self._host.clock.monotonic())
        except (StageFailed, ProtocolError) as error:
            asker = self._stage.asker(message.session, message.hop) or peer
            self._refuse(asker, message.session, message.hop, error)
        self._work_waits.set()

    def _refuse(self, peer: bytes, session: bytes, hop: int, error: KwaaiNetError) -> None:
        code = str(error.data.get("reason", error.code))
        self._mesh.send(peer, StageError(session, hop, code, str(error)[:1000]))

    async def _run(self) -> None:
        while True:
            work = self._stage.next_work()
            if work is None:
                self._work_waits.clear()
                await self._work_waits.wait()
                continue
            session, opening = work.session, work.session.opening
            try:
                async with self._loading:
                    if not self._stage.is_open(session):
                        continue
                    begun = self._host.clock.monotonic()
                    hidden = await self._budget.cpu.run(self._compute(work))
                self._pass_on(work, hidden, self._host.clock.monotonic() - begun)
            except KwaaiNetError as error:
                self._refuse(session.asker, opening.session, opening.hop, error)
                self._stage.drop(session)

    async def _compute(self, work: Work) -> bytes:
        opening = work.session.opening
        span = next(
            one.span
            for one in self._loaded
            if one.span.first <= opening.first and opening.last <= one.span.last
        )
        return await span.run(work.session.cache, work.hidden, work.position, work.count)

    def _pass_on(self, work: Work, hidden: bytes, seconds: float) -> None:
        session, opening = work.session, work.session.opening
        if not self._stage.is_open(session):
            return
        if opening.final:
            assert self._model is not None
            row = last_row(hidden, self._model.manifest.hidden_size)
            result = Result(opening.session, work.position + work.count - 1)
            self._mesh.send(opening.next, result, row)
        else:
            step = Step(opening.session, opening.hop + 1, work.position, work.count)
            self._mesh.send(opening.next, step, hidden)
        if session.asker != self._host.keys.public_key:
            self.totals.tokens += work.count
        self._report(session, seconds)

    def _report(self, session: StageSession, seconds: float) -> None:
        seen = self._seen.setdefault(session.key, _Seen())
        now = self._host.clock.monotonic()
        if now - seen.reported >= _REPORT_EVERY:
            seen.reported = now
            opening = session.opening
            report = StageReport(opening.session, opening.hop, seen.path, seconds * 1000)
            self._mesh.send(session.asker, report)

    # --- span -----------------------------------------------------------------------------

    async def _load(self, first: int, last: int) -> None:
        assert self._model is not None
        assert self._fetch is not None
        weights = self._weights(last - first)
        loading = self._budget.reserve(weights * _LOADING, f"blocks {first} to {last}")
        try:
            span = await self._host.engine.load_span(self._model.manifest, first, last, self._fetch)
        except BaseException:
            loading.release()
            raise
        loading.release()
        self._loaded.append(_Loaded(span, self._budget.reserve(weights, "weights")))

    def _weights(self, blocks: int) -> int:
        assert self._model is not None
        expanded = self._host.engine.expanded
        return self._model.manifest.span_bytes(0, blocks, expanded=expanded)

    async def _unload(self) -> None:
        self._mesh.publish(None)
        for session in self._stage.clear():
            moved = StageFailed("this node serves other blocks now", reason="moved")
            self._refuse(session.asker, session.opening.session, session.opening.hop, moved)
        self._seen.clear()
        for loaded in self._loaded:
            await loaded.span.close()
            loaded.memory.release()
        self._loaded.clear()

    async def _measure(self) -> float:
        """Positions·blocks a second, as others will get them: under the cpu cap."""
        assert self._model is not None
        span = self._loaded[0].span
        blocks = span.last - span.first
        hidden = bytes(self._model.manifest.hidden_bytes(1))
        with self._budget.reserved(
            self._model.manifest.kv_bytes(_MEASURE_STEPS + 1, blocks), "measuring"
        ):
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
        share = self._budget.limits.cpu / 100
        return min(1e8, max(1e-3, blocks * steps * share / max(spent, 1e-6)))

    def _others(self) -> list[Served]:
        assert self._model is not None
        return [
            Served(entry.announcement.first, entry.announcement.last, entry.announcement.throughput)
            for entry in self._mesh.entries(bytes.fromhex(self._model.id))
        ]

    async def _announce(self) -> None:
        while True:
            await self.announce_now()
            await asyncio.sleep(ANNOUNCE_EVERY)

    async def announce_now(self) -> None:
        """Publish what is loaded."""
        if self._model is None or self.span is None:
            return
        first, last = self.span
        each = self._model.manifest.kv_bytes(1, last - first)
        announcement = Announcement(
            model=bytes.fromhex(self._model.id),
            first=first,
            last=last,
            throughput=self._throughput,
            engine=self._host.engine.name,
            host=self._host.kind,
            free_positions=min(self._budget.memory_free // each, 2**31 - 1),
            region=self._config.region,
        )
        signed = await announce(self._host.keys, announcement, self._host.clock.wall())
        self._mesh.publish(signed)
        self._changed()

    async def _settle(self) -> None:
        """Move to where the swarm is weakest, a while after it changed."""
        while True:
            await self._directory_changed.wait()
            self._directory_changed.clear()
            await asyncio.sleep(self._random.uniform(*_SETTLE))
            if self._model is None or self.span is None or self._stage.busy:
                continue
            mine = Served(*self.span, self._throughput)
            blocks = self._model.manifest.blocks
            target = should_move(blocks, mine, self._others(), self._tie)
            if target is not None:
                async with self._loading:
                    await self._unload()
                    await self._load(*target)
                await self.announce_now()

    async def _housekeep(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING)
            self._stage.drop_idle(self._host.clock.monotonic())
            live = self._stage.keys()
            self._seen = {key: seen for key, seen in self._seen.items() if key in live}
