"""An event loop whose time is a number: it jumps to the next timer when nothing is ready.

A day of a thousand nodes runs in seconds, the same way every time. Two things make that true:
nothing here reads a real clock or a socket, and `run_in_executor` runs its function at once, so
that no thread decides an order. When nothing is ready and no timer is set, no future can ever
come true: the loop raises `Deadlock` and names what waits.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, ParamSpec, TypeVar, TypeVarTuple, Unpack

__all__ = ["Deadlock", "SimulatedClock", "VirtualLoop", "run_virtual", "virtual"]

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

EPOCH = 1_800_000_000.0
"""What the wall clock of an unskewed host reads when a loop starts: a fixed moment in 2027."""

HORIZON = 7 * 86_400.0
"""Virtual seconds after which a run is taken to hang: periodic timers never deadlock."""


class Deadlock(BaseException):
    """Nothing is ready and no timer is set. Not an Exception: no code under test may catch it."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order of their virtual times. `time()` starts at 0."""

    def __init__(self, *, horizon: float = HORIZON) -> None:
        super().__init__()
        self._now = 0.0
        self._horizon = horizon
        self._selector = self  # `_run_once` asks its selector to wait: that is where time jumps
        self.failures: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.failures.append(context))

    def time(self) -> float:
        return self._now

    def select(self, timeout: float | None) -> list[Any]:
        """Stand in for a selector: instead of waiting, move time to the next timer."""
        if timeout is None:
            raise Deadlock(self._waiting("nothing is ready and no timer is set"))
        if timeout > 0:
            # The timer's own time, not now + timeout: rounding must not leave it in the future.
            self._now = self._scheduled[0]._when  # type: ignore[attr-defined]
            if self._now > self._horizon:
                raise Deadlock(self._waiting(f"still running after {self._horizon:.0f} s"))
        return []

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run `func` here and now: a thread would make the order of events a matter of luck."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def _waiting(self, why: str) -> str:
        tasks = sorted(asyncio.all_tasks(self), key=lambda task: task.get_name())
        lines = [f"{why}; at {self._now:.3f} s these tasks wait:"]
        for task in tasks:
            frames = task.get_stack()
            where = f"{frames[-1].f_code.co_filename}:{frames[-1].f_lineno}" if frames else "?"
            lines.append(f"  {task.get_name()} at {where}")
        return "\n".join(lines)


def run_virtual(main: Coroutine[Any, Any, T], *, horizon: float = HORIZON) -> T:
    """Run `main` on a fresh virtual loop, as `asyncio.run` would.

    Tasks still running at its end are cancelled. An exception that reached only the loop's
    exception handler (a callback's, or a task's that nobody awaited) is raised in the end.
    """
    loop = VirtualLoop(horizon=horizon)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        result = runner.run(main)
    for context in loop.failures:
        raise RuntimeError(context["message"]) from context.get("exception")
    return result


def virtual(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Make a plain function of a coroutine function: it runs by `run_virtual`. For tests."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return run_virtual(test(*args, **kwargs))

    return run


class SimulatedClock:
    """The running loop's time. `skew` seconds set this host's wall clock off from the others'."""

    def __init__(self, skew: float = 0.0) -> None:
        self.skew = skew

    def wall(self) -> float:
        return EPOCH + asyncio.get_running_loop().time() + self.skew

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()
