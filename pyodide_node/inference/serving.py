"""Runs blocks for others, and for this node itself: the shell around `Stage`.

One step runs at a time: an engine's sessions share one processor, and the cpu cap counts from
one place.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from pyodide_node.budget import Budget
from pyodide_node.delivery.catalog import Model
from pyodide_node.errors import (
    BudgetExceeded,
    KwaaiNetError,
    ProtocolError,
    StageFailed,
    Unreachable,
)
from pyodide_node.hosts.base import Buffer, Host, Span
from pyodide_node.inference.holding import Holding
from pyodide_node.inference.stage import Stage, StageSession, Work
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

_REPORT_EVERY = 1.0
"""Seconds between reports; the first steps, 1, 2, 4, 8, …, are reported at once."""
_HOUSEKEEPING = 30.0


@dataclass(slots=True)
class ServedTotals:
    """For the meter: work done for others since the start."""

    tokens: int = 0
    sessions: int = 0


@dataclass(slots=True)
class _Seen:
    """What is reported of a session, and when it last was."""

    path: Path = "local"
    steps: int = 0
    reported: float = float("-inf")


class Serving:
    """Sessions over the spans of one `Holding`."""

    def __init__(
        self, host: Host, mesh: Mesh, budget: Budget, model: Model, holding: Holding
    ) -> None:
        self._host = host
        self._mesh = mesh
        self._budget = budget
        self._model = model
        self._holding = holding
        self._stage = Stage(model.manifest.hidden_size)
        self._seen: dict[tuple[bytes, int], _Seen] = {}
        self._work_waits = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.totals = ServedTotals()

    @property
    def busy(self) -> bool:
        """Whether anybody's session is open."""
        return self._stage.busy

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._run(), name="stage"),
            asyncio.create_task(self._housekeep(), name="stage housekeeping"),
        ]

    def peer_left(self, peer: bytes) -> None:
        self._stage.drop_peer(peer)

    def take(self, peer: bytes, message: Message, payload: Buffer, path: Path) -> None:
        """A message of an asker or of the stage before."""
        match message:
            case OpenSession():
                self._open(peer, message)
            case Step():
                self._step(peer, message, payload, path)
            case CloseSession(session):
                self._stage.close(peer, session)

    def end_sessions(self) -> None:
        """Drop every session and tell its asker: this node will serve other blocks."""
        for session in self._stage.clear():
            moved = StageFailed("this node serves other blocks now", reason="moved")
            self._refuse(session.asker, session.opening.session, session.opening.hop, moved)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.end_sessions()

    # --- opening --------------------------------------------------------------------------

    def _open(self, peer: bytes, message: OpenSession) -> None:
        try:
            session = self._admit(peer, message)
        except (StageFailed, BudgetExceeded) as error:
            self._refuse(peer, message.session, message.hop, error)
            return
        self._stage.add(session)
        try:
            self._mesh.send(peer, SessionOpened(message.session, message.hop))
        except Unreachable:  # who takes no answers needs no session
            self._stage.drop(session)
            return
        if peer != self._host.keys.public_key:
            self.totals.sessions += 1

    def _admit(self, peer: bytes, message: OpenSession) -> StageSession:
        manifest = self._model.manifest
        if message.model.hex() != self._model.id:
            raise StageFailed("this node does not serve that model", reason="model")
        first, last = message.first, message.last
        span = self._holding.find(first, last)
        if span is None or message.capacity > manifest.context_length:
            raise StageFailed("this node does not serve these blocks", reason="moved")
        self._stage.check_opening(peer, message)
        memory = self._budget.reserve(
            self._holding.footprint.session(message.capacity, last - first), "a session"
        )
        try:
            cache = span.open_cache(first, last, message.capacity)
        except KwaaiNetError as error:
            memory.release()
            raise StageFailed(str(error), reason="engine") from error
        return StageSession(peer, message, cache, memory.release, self._host.clock.monotonic())

    def _refuse(self, peer: bytes, session: bytes, hop: int, error: KwaaiNetError) -> None:
        code = str(error.data.get("reason", error.code))
        with contextlib.suppress(Unreachable):  # it will find out by its deadline
            self._mesh.send(peer, StageError(session, hop, code, str(error)[:1000]))

    # --- steps ----------------------------------------------------------------------------

    def _step(self, peer: bytes, message: Step, payload: Buffer, path: Path) -> None:
        key = message.session, message.hop
        try:
            self._stage.step(peer, message, payload, self._host.clock.monotonic())
        except (StageFailed, ProtocolError) as error:
            self._refuse(self._stage.asker(peer, *key) or peer, *key, error)
            return
        self._seen.setdefault(key, _Seen()).path = path
        self._work_waits.set()

    async def _run(self) -> None:
        while True:
            work = self._stage.next_work()
            if work is None:
                self._work_waits.clear()
                await self._work_waits.wait()
            else:
                await self._perform(work)

    async def _perform(self, work: Work) -> None:
        session, opening = work.session, work.session.opening
        try:
            async with self._holding.lock:
                span = self._holding.find(opening.first, opening.last)
                if span is None or not self._stage.is_open(session):
                    return
                hidden, seconds = await self._budget.cpu.run(self._compute(span, work))
            if self._stage.is_open(session):
                self._pass_on(work, hidden)
                self._report(session, seconds / work.count)
        except KwaaiNetError as error:
            self._refuse(session.asker, opening.session, opening.hop, error)
            self._stage.drop(session)

    async def _compute(self, span: Span, work: Work) -> tuple[bytes, float]:
        """The result, and the seconds it took without the rest that the cpu cap asks for."""
        begun = self._host.clock.monotonic()
        hidden = await span.run(work.session.cache, work.hidden, work.position, work.count)
        return hidden, self._host.clock.monotonic() - begun

    def _pass_on(self, work: Work, hidden: bytes) -> None:
        opening = work.session.opening
        if opening.final:
            row = last_row(hidden, self._model.manifest.hidden_size)
            result = Result(opening.session, work.position + work.count - 1)
            self._mesh.send(opening.next, result, row)
        else:
            step = Step(opening.session, opening.hop + 1, work.position, work.count)
            self._mesh.send(opening.next, step, hidden)
        if work.session.asker != self._host.keys.public_key:
            self.totals.tokens += work.count

    def _report(self, session: StageSession, seconds: float) -> None:
        seen = self._seen.setdefault(session.key, _Seen())
        seen.steps += 1
        now = self._host.clock.monotonic()
        if seen.steps.bit_count() == 1 or now - seen.reported >= _REPORT_EVERY:
            seen.reported = now
            opening = session.opening
            report = StageReport(opening.session, opening.hop, seen.path, seconds * 1000)
            self._mesh.send(session.asker, report)

    async def _housekeep(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING)
            self._stage.drop_idle(self._host.clock.monotonic())
            live = self._stage.keys()
            self._seen = {key: seen for key, seen in self._seen.items() if key in live}
