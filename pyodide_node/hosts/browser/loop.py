"""Pyodide's event loop, with what is ready run together and at once.

Pyodide makes a task of the browser's, with a stack of its own, of every single callback, and
every future has two: awaiting a JavaScript promise costs 0.3 ms, several times for every token.
Here callbacks that are ready run in one go, as in other asyncio loops; first in a microtask,
right after what made them ready, and in a task of their own where they would otherwise keep the
browser from its own work (messages, sockets, timers) for too long.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from js import queueMicrotask
from pyodide.ffi import create_proxy
from pyodide_js._api import scheduleCallback  # type: ignore[import-not-found]

__all__ = ["quicken"]

YIELD_AFTER = 0.004
"""Seconds of microtasks, after which the browser has its turn."""


def quicken(loop: Any) -> None:
    """Let `loop`, a Pyodide WebLoop, run its ready callbacks this way."""
    if not isinstance(getattr(loop.call_soon, "__self__", None), _Ready):
        loop.call_soon = loop.call_soon_threadsafe = _Ready(loop).call_soon


class _Ready:
    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._handles: deque[asyncio.Handle] = deque()
        self._due = False
        self._yielded = time.perf_counter()
        self._microtask = create_proxy(self._run)
        self._task = create_proxy(self._run_after_yielding)

    def call_soon(
        self,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self._loop, context)
        self._handles.append(handle)
        if not self._due:
            self._schedule()
        return handle

    def _schedule(self) -> None:
        self._due = True
        if time.perf_counter() - self._yielded < YIELD_AFTER:
            queueMicrotask(self._microtask)
        else:
            scheduleCallback(self._task, 0)

    def _run_after_yielding(self) -> None:
        self._yielded = time.perf_counter()
        self._run()

    def _run(self) -> None:
        self._loop._install_running_loop()
        self._loop._install_asyncgen_hooks()
        try:
            # Going through JavaScript between rounds costs more than most rounds do.
            while self._handles:
                # What these make ready waits for the next round, as everywhere in asyncio.
                for _ in range(len(self._handles)):
                    handle = self._handles.popleft()
                    if not handle.cancelled():
                        handle._run()
                if time.perf_counter() - self._yielded >= YIELD_AFTER:
                    break
        finally:
            self._due = False
            if self._handles:
                self._schedule()
