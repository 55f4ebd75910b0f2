"""What went by the data channel and the other side has not said that it has. Sans-IO.

A channel that dies takes along what it had been handed: the sender keeps a copy until it is heard,
and sends it again by another way. The receiver drops what it has already.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from pyodide_node.wire import limits
from pyodide_node.wire.frames import Frame

__all__ = ["Unheard"]


class Unheard:
    """Frames by their sequence number, oldest first; times are the caller's clock, in seconds."""

    def __init__(self) -> None:
        self._frames: dict[int, tuple[float, Frame]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def oldest(self) -> float | None:
        """When the frame that waits longest was sent."""
        return next((when for when, _ in self._frames.values()), None)

    def sent(self, frame: Frame, now: float) -> None:
        """Keep a frame. A peer that never says what it has costs `limits.UNHEARD` bytes."""
        self._frames[frame.sequence] = (now, frame)
        self._bytes += frame.length
        while self._bytes > limits.UNHEARD and len(self._frames) > 1:
            self.take(next(iter(self._frames)))

    def heard(self, sequences: Iterable[int]) -> None:
        for sequence in sequences:
            self.take(sequence)

    def take(self, sequence: int) -> bool:
        """Let go of one frame; whether it was still kept."""
        kept = self._frames.pop(sequence, None)
        if kept is not None:
            self._bytes -= kept[1].length
        return kept is not None

    def take_all(self, before: float = inf) -> list[Frame]:
        """Let go of those sent before then."""
        late = [frame for when, frame in self._frames.values() if when < before]
        for frame in late:
            self.take(frame.sequence)
        return late
