"""The asker's side of one session: a fixed route, steps in, hidden states out.

A session lives as long as its route does. When a stage fails the session is given up and the
asker opens another one; nothing of it needs to be saved but the token ids.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pyodide_node.errors import ProtocolError, StageFailed, Unreachable
from pyodide_node.hosts.base import Buffer, Host
from pyodide_node.inference.route import Hop
from pyodide_node.mesh.mesh import Mesh
from pyodide_node.mesh.paths import Path
from pyodide_node.mesh.peer import short
from pyodide_node.model.manifest import Manifest
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
from pyodide_node.wire.tensors import check_activations

__all__ = ["HopReport", "Session"]

_OPEN_DEADLINE = 30.0
"""A stage may have to load a part of its span anew for this route."""
_FIRST_DEADLINE = 30.0
"""The first step compiles shaders and opens connections."""
_STEP_LEAST, _STEP_FACTOR = 3.0, 10.0
"""Later steps: so many times the usual time, but never less than the first."""
_DEADLINE_MOST = 120.0
"""With what the stages themselves said that they need, however slow they say they are."""
_EARLY = 0.001
"""Seconds by which a timer may be early."""
_FED = {ProtocolError.__name__, "gap"}
"""What a stage says of the steps that it was sent: it lies, or the stage before it does."""
_IN_FLIGHT = 2
"""Prompt chunks under way at once: stages overlap, nobody's queue fills."""


@dataclass(slots=True)
class HopReport:
    """What a stage last said of itself."""

    path: Path | None = None
    step_ms: float | None = None


class Session:
    """Runs positions through the hops of one route."""

    def __init__(
        self,
        host: Host,
        mesh: Mesh,
        manifest: Manifest,
        hops: Sequence[Hop],
        capacity: int,
        seconds: float = 0.0,
    ) -> None:
        """`seconds` is what one position should take, by what the stages say of themselves."""
        self._host = host
        self._mesh = mesh
        self._manifest = manifest
        self.hops = list(hops)
        self._capacity = capacity
        self._seconds = seconds
        self._fed = self._feeding = 0
        self.id = host.keys.random(16)
        self._opened: set[int] = set()
        self._failure: StageFailed | None = None
        self._awaited: set[int] = set()
        self._results: dict[int, Buffer] = {}
        self._changed = asyncio.Event()
        self._deadline = self._wakes = float("inf")
        self._timer: asyncio.TimerHandle | None = None
        self._times: deque[float] = deque(maxlen=32)
        self.reports = [HopReport() for _ in self.hops]

    async def open(self) -> None:
        """Open every hop. Raises StageFailed, Unreachable."""
        own = self._host.keys.public_key
        model = bytes.fromhex(self._manifest.model_id)
        peers = [own, *(hop.peer for hop in self.hops), own]
        for index, hop in enumerate(self.hops):
            opening = OpenSession(
                session=self.id,
                hop=index,
                model=model,
                first=hop.first,
                last=hop.last,
                capacity=self._capacity,
                previous=peers[index],
                next=peers[index + 2],
                final=index == len(self.hops) - 1,
            )
            self._mesh.send(hop.peer, opening)
        await self._until(lambda: len(self._opened) == len(self.hops), _OPEN_DEADLINE)

    async def run(self, position: int, chunks: Sequence[Buffer]) -> Buffer:
        """Feed float32[n, hidden] chunks from `position` on; float32[hidden] of the last one.

        Raises StageFailed, Unreachable.
        """
        row = self._manifest.hidden_bytes(1)
        begun = self._host.clock.monotonic()
        ends: list[int] = []
        self._fed, self._feeding = self._feeding, sum(len(chunk) // row for chunk in chunks)
        for index, chunk in enumerate(chunks):
            if index >= _IN_FLIGHT:
                await self._result(ends[index - _IN_FLIGHT])
            count = len(chunk) // row
            step = Step(self.id, 0, position, count)
            position += count
            ends.append(position - 1)
            self._awaited.add(position - 1)
            self._mesh.send(self.hops[0].peer, step, chunk)
        hidden = await self._result(ends[-1])
        self._times.append((self._host.clock.monotonic() - begun) / len(chunks))
        self._awaited.clear()
        self._results.clear()
        return hidden

    def take(self, peer: bytes, message: Message, payload: Buffer) -> None:
        """A message of one of the stages."""
        match message:
            case SessionOpened(_, hop) if self._is_hop(peer, hop):
                self._opened.add(hop)
            case StageReport(_, hop, path, step_ms) if self._is_hop(peer, hop):
                self.reports[hop] = HopReport(path, step_ms)
            case StageError(_, hop, code, reason) if self._is_hop(peer, hop):
                self._fail(peer, code, reason, fed_by=self._feeder(hop) if code in _FED else None)
            case Result(_, position) if peer == self.hops[-1].peer and position in self._awaited:
                try:
                    check_activations(payload, 1, self._manifest.hidden_size)
                except ProtocolError as error:
                    self._fail(peer, "lied", str(error))
                else:
                    self._results[position] = payload
        self._changed.set()

    def peer_left(self, peer: bytes) -> None:
        if any(hop.peer == peer for hop in self.hops):
            self._fail(peer, "gone", "it left the network")

    def close(self) -> None:
        """Tell every stage; what cannot be told gives its cache back by itself later."""
        if self._timer is not None:
            self._timer.cancel()
        for peer in {hop.peer for hop in self.hops}:
            with contextlib.suppress(Unreachable):
                self._mesh.send(peer, CloseSession(self.id))

    async def _result(self, position: int) -> Buffer:
        deadline = _FIRST_DEADLINE
        if self._times:
            deadline = max(_STEP_LEAST, _STEP_FACTOR * statistics.median(self._times))
        # A stage under a low cpu cap rests after a long prompt: the step after it waits for that.
        deadline += self._seconds * (self._fed + self._feeding)
        deadline = min(deadline, _DEADLINE_MOST)
        await self._until(lambda: position in self._results, deadline)
        return self._results[position]

    async def _until(self, done: Callable[[], bool], seconds: float) -> None:
        self._deadline = self._host.clock.monotonic() + seconds
        if self._timer is None or self._deadline < self._wakes:
            self._wake_by(seconds)
        while not done():
            if self._failure is not None:
                raise self._failure
            if self._left() <= _EARLY:
                slow = self._silent()
                raise StageFailed(
                    f"node {short(slow)} has not answered within {seconds:.0f} s",
                    peer=slow,
                    reason="stalled",
                )
            self._changed.clear()
            await self._changed.wait()

    def _wake_by(self, seconds: float) -> None:
        """Let `_until` look at the time then. One timer serves many steps: each only moves the
        deadline."""
        if self._timer is not None:
            self._timer.cancel()
        self._wakes = self._host.clock.monotonic() + seconds
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        left = self._left()
        if left > _EARLY:
            self._wake_by(left)
        else:
            self._changed.set()

    def _left(self) -> float:
        return self._deadline - self._host.clock.monotonic()

    def _silent(self) -> bytes:
        """Whom to blame for silence: the first hop that has not opened, else the first that is
        not this node itself and has reported least."""
        for index, hop in enumerate(self.hops):
            if index not in self._opened:
                return hop.peer
        own = self._host.keys.public_key
        others = [i for i, hop in enumerate(self.hops) if hop.peer != own]
        quiet = [i for i in others if self.reports[i].path is None]
        return self.hops[(quiet or others or [0])[0]].peer

    def _is_hop(self, peer: bytes, hop: int) -> bool:
        return hop < len(self.hops) and self.hops[hop].peer == peer

    def _feeder(self, hop: int) -> bytes | None:
        return self.hops[hop - 1].peer if hop else None

    def _fail(self, peer: bytes, code: str, reason: str, fed_by: bytes | None = None) -> None:
        if self._failure is None:
            self._failure = StageFailed(
                f"node {short(peer)} cannot go on: {reason}",
                peer=peer,
                reason=code,
                fed_by=fed_by,
            )
        self._changed.set()
