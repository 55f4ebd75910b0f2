"""What a data channel was handed, kept until it is heard of, and doubted when it is not.

A channel may be silent long before its connection is known to be lost. Whether it is or the other
side is only busy, its answer by the relay tells: one that is busy answers neither way, and then
nothing is sent twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from pyodide_node.hosts.base import Clock
from pyodide_node.mesh.unheard import Unheard
from pyodide_node.wire.frames import Frame

__all__ = ["HEARD_BY", "Custody"]

HEARD_BY = 1.5
"""Seconds after which a channel is doubted: half of what a stage's step may take at the least."""


class Custody:
    """`ask` pings the other side by the relay, None where there is none to go by; `wake` is called
    when there is something `again`."""

    def __init__(
        self, clock: Clock, *, ask: Callable[[], None] | None, wake: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._ask = ask
        self._wake = wake
        self._timer: asyncio.TimerHandle | None = None
        self._doubted: float | None = None
        """When the other side was asked whether it is there."""
        self.unheard = Unheard()
        self.again: deque[Frame] = deque()
        """What may be lost: sent again, by another way, before all else."""

    def sent(self, frame: Frame) -> None:
        self.unheard.sent(frame, self._clock.monotonic())
        self._watch()

    def lost(self) -> None:
        """The channel is closed."""
        self._send_again(self.unheard.take_all())

    def answered(self, token: int) -> bool:
        """The other side answered the ping with this token, its microsecond, by the relay. Whether
        the channel is to be passed over: what the other side had time to hear of, it did not."""
        if self._doubted is None or token < int(self._doubted * 1e6):
            return False
        late = self.unheard.take_all(before=self._doubted - HEARD_BY / 2)
        self._doubted = None
        self._send_again(late)
        return bool(late)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _send_again(self, frames: list[Frame]) -> None:
        self.again.extend(frames)
        if self.again:
            self._wake()

    def _watch(self) -> None:
        if self._timer is None and self._ask is not None:
            self._timer = asyncio.get_running_loop().call_later(HEARD_BY, self._look)

    def _look(self) -> None:
        self._timer = None
        oldest, now = self.unheard.oldest, self._clock.monotonic()
        if oldest is None:
            return
        if now - oldest >= HEARD_BY and self._ask is not None:
            self._doubted = now
            self._ask()
        self._watch()
