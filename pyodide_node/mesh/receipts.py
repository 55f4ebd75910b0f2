"""Receipts for what came by the data channel, several in one message."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pyodide_node.wire import limits
from pyodide_node.wire.messages import PathAck

__all__ = ["Receipts"]

_AFTER = 0.1
"""Seconds that a receipt waits for others; a token's step should not cost two messages."""


class Receipts:
    """`tell` sends one to the peer, by whatever way."""

    def __init__(self, tell: Callable[[PathAck], None]) -> None:
        self._tell = tell
        self._sequences: list[int] = []
        self._timer: asyncio.TimerHandle | None = None

    def note(self, sequence: int) -> None:
        """A message came by the channel."""
        self._sequences.append(sequence)
        if len(self._sequences) >= limits.RECEIPTS:
            self._send()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_AFTER, self._send)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _send(self) -> None:
        self.end()
        sequences, self._sequences = self._sequences, []
        self._tell(PathAck(sequences))
