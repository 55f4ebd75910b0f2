"""How the network did, minute by minute, for a day. Sans-IO."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from relay_server.counters import Counters
from relay_server.map.document import ModelView, Totals
from relay_server.map.views import judged

__all__ = ["EVERY", "LENGTH", "History", "Sample"]

EVERY: Final = 60
"""Seconds between two samples."""

LENGTH: Final = 24 * 60
"""Samples kept: a day."""


class Sample(Struct, frozen=True, array_like=True):
    """One minute. What counts up is what that minute added."""

    time: int
    """Its end, in seconds since 1970."""
    nodes: int
    whole: int
    """Models that could be asked."""
    covered: int
    blocks: int
    """Blocks that somebody served, of those of all judged models that any node served."""
    throughput: float
    """Positions through one block, of all nodes together, a second."""
    answers: int
    tokens: int
    """Through this relay's API: answers that ended, and their tokens."""
    forwarded: int
    """Bytes between nodes that passed through this relay."""


class History:
    """A ring of samples; `counters` are the relay's."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._samples: deque[Sample] = deque(maxlen=LENGTH)
        self._before = self._counted()

    def __len__(self) -> int:
        return len(self._samples)

    def recall(self, samples: Iterable[Sample]) -> None:
        """Those of a former run, oldest first."""
        self._samples = deque([*samples, *self._samples], maxlen=LENGTH)

    def take(self, now: float, totals: Totals, models: list[ModelView]) -> Sample:
        """Keep what is so at `now`, in seconds since 1970."""
        served = [model for model in judged(models) if model.nodes]
        counted = self._counted()
        answers, tokens, forwarded = (
            new - old for new, old in zip(counted, self._before, strict=True)
        )
        self._before = counted
        blocks = sum(len(model.blocks) for model in served)
        sample = Sample(
            time=int(now),
            nodes=totals.nodes,
            whole=totals.whole,
            covered=blocks - sum(model.missing for model in served),
            blocks=blocks,
            throughput=totals.throughput,
            answers=answers,
            tokens=tokens,
            forwarded=forwarded,
        )
        self._samples.append(sample)
        return sample

    def columns(self) -> dict[str, list[float]]:
        """A list for each field, oldest first: as charts want them, and half as long."""
        names = Sample.__struct_fields__
        return {name: [getattr(sample, name) for sample in self._samples] for name in names}

    def _counted(self) -> tuple[int, int, int]:
        counters = self._counters
        return counters.api_answers, counters.api_tokens["completion"], counters.forwarded_bytes
