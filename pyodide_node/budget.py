"""The visitor's caps, enforced: memory and storage are reserved before use, cpu is a duty cycle."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from pyodide_node.config import ResourceLimits
from pyodide_node.errors import BudgetExceeded
from pyodide_node.hosts.base import Clock, HostKind

__all__ = ["MEGABYTE", "RUNTIME_MEMORY", "RUNTIME_STORAGE", "Budget", "DutyCycle", "Reservation"]

MEGABYTE: Final = 1_000_000

RUNTIME_MEMORY: Final[dict[HostKind, int]] = {
    "tab": 280 * MEGABYTE,
    "native": 120 * MEGABYTE,
    "simulated": 0,
}
"""What the runtime itself takes before any weight is loaded. A tab's process was measured at
210 MB: the browser's own part, Python's and the engine's heaps; the rest is what a busy one has
not collected yet."""

RUNTIME_STORAGE: Final[dict[HostKind, int]] = {
    "tab": 64 * MEGABYTE,
    "native": 0,
    "simulated": 0,
}
"""What a tab's runtime keeps for a quick start, within the visitor's cap: its files, and a snapshot
of Python's memory of 31 MB."""

_WINDOW: Final = 10.0
"""Seconds over which the share of cpu is told to people."""

_BURST: Final = 0.25
"""Seconds of work that may be owed: short answers need not stutter, the mean still holds."""

T = TypeVar("T")


class Reservation:
    """Memory set aside; `release` gives it back, once."""

    def __init__(self, budget: Budget, size: int) -> None:
        self._budget = budget
        self.size = size

    def release(self) -> None:
        self._budget._memory -= self.size
        self.size = 0


class DutyCycle:
    """Keeps the share of time spent computing at or under `percent` of one core.

    After work of d seconds the node owes d * (100 / percent - 1) seconds of rest. Rest is paid
    before the next work begins, so a cap holds from the first second on.
    """

    def __init__(self, clock: Clock, percent: int) -> None:
        self._clock = clock
        self.percent = percent
        self._owed = 0.0
        self._since = clock.monotonic()
        self._spans: deque[tuple[float, float]] = deque()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Rest as owed, then do the work and count it."""
        self._pay()
        if self._owed > _BURST:
            try:
                await asyncio.sleep(self._owed - _BURST)
            except asyncio.CancelledError:
                work.close()  # never begun: Python would warn of it
                raise
            self._pay()
        begun = self._clock.monotonic()
        try:
            return await work
        finally:
            ended = self._clock.monotonic()
            self._since = ended
            self._owed += (ended - begun) * (100 / self.percent - 1)
            self._spans.append((begun, ended))

    def used(self) -> float:
        """Percent of the last ten seconds spent computing."""
        now = self._clock.monotonic()
        while self._spans and self._spans[0][1] < now - _WINDOW:
            self._spans.popleft()
        busy = sum(end - max(begin, now - _WINDOW) for begin, end in self._spans)
        return 100 * busy / _WINDOW

    def _pay(self) -> None:
        now = self._clock.monotonic()
        self._owed = max(0.0, self._owed - (now - self._since))
        self._since = now


class Budget:
    """One node's caps and what is used of them."""

    def __init__(self, clock: Clock, kind: HostKind, limits: ResourceLimits) -> None:
        self.limits = limits
        self.cpu = DutyCycle(clock, limits.cpu)
        self._memory = RUNTIME_MEMORY[kind]

    @property
    def memory_used(self) -> int:
        return self._memory

    @property
    def memory_free(self) -> int:
        return max(0, self.limits.memory * MEGABYTE - self._memory)

    def reserve(self, size: int, what: str) -> Reservation:
        """Set memory aside. Raises BudgetExceeded and then nothing was."""
        if size > self.memory_free:
            raise BudgetExceeded(
                f"{what} needs {size / MEGABYTE:.0f} MB of memory and"
                f" {self.memory_free / MEGABYTE:.0f} MB are free; raise memory in"
                " data-max-resources or choose a smaller model",
                resource="memory",
                asked=size,
                free=self.memory_free,
            )
        self._memory += size
        return Reservation(self, size)

    @contextmanager
    def reserved(self, size: int, what: str) -> Iterator[None]:
        reservation = self.reserve(size, what)
        try:
            yield
        finally:
            reservation.release()

    def set_limits(self, limits: ResourceLimits) -> None:
        """New caps from the visitor; what is over the new memory cap must be given back by its
        owner (see `memory_free`)."""
        self.limits = limits
        self.cpu.percent = limits.cpu
