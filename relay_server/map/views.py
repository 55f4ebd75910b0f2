"""Makes what others read from the tally, anew only where it changed. Sans-IO."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from relay_server.map.document import ModelState, ModelView, NetworkState, SpanView, Totals
from relay_server.map.tally import ModelTally, Tally
from relay_server.models import Model

__all__ = ["MODELS", "SPANS", "Views", "judged"]

MODELS: Final = 32
"""Models listed: anybody can announce any number of them."""

SPANS: Final = 512
"""Spans listed of one model: of 80 blocks there are 3240."""

_FEWEST: Final = 2
"""A block with fewer nodes than this breaks the model when one of them leaves."""

_NOBODY: Final = ModelTally()
_ORDER: Final[dict[ModelState, int]] = {"whole": 0, "gaps": 1, "idle": 2}


@dataclass(frozen=True, slots=True)
class _Made:
    """A view, and what it was made of."""

    tally: ModelTally
    changes: int
    offered: Model | None
    view: ModelView


class Views:
    """`offered` are the models of this relay by their id; it may be replaced at any time."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._made: dict[str, _Made] = {}
        self.offered: Mapping[str, Model] = {}

    def models(self) -> list[ModelView]:
        """Those listed, in their order; an unchanged one is the same object as before."""
        self._made = {id: self._model(id) for id in self._listed()}
        views = [made.view for made in self._made.values()]
        # What can be asked comes first, whatever waits for nodes last; else as listed.
        return sorted(views, key=lambda view: (not view.name, _ORDER[view.state]))

    def totals(self, models: Sequence[ModelView], connected: int) -> Totals:
        tally = self._tally
        whole = sum(model.state == "whole" for model in judged(models))
        state: NetworkState = "up" if whole else "gaps" if tally.nodes else "idle"
        served = sum(bytes.fromhex(id) in tally.models for id in self.offered)
        return Totals(
            state=state,
            nodes=tally.nodes,
            fetching=tally.fetching,
            connected=connected,
            hosts=dict(sorted(tally.hosts.items())),
            engines=dict(sorted(tally.engines.items())),
            throughput=_rounded(tally.throughput),
            models=len(self.offered) + len(tally.models) - served,
            whole=whole,
        )

    def spans(self, model: str) -> list[SpanView]:
        """In their order; the busiest where there are too many."""
        spans = self._of(model).spans
        kept = heapq.nlargest(SPANS, spans, key=lambda span: spans[span][0])
        return [
            SpanView(first, last, spans[first, last][0], _rounded(spans[first, last][1]))
            for first, last in sorted(kept)
        ]

    def _of(self, model: str) -> ModelTally:
        return self._tally.models.get(bytes.fromhex(model), _NOBODY)

    def _listed(self) -> list[str]:
        """The offered ones first; then by nodes, so that nobody is pushed out by an empty name."""
        offered = sorted(self.offered, key=lambda id: (-self._of(id).nodes, self.offered[id].name))
        room = max(0, MODELS - len(offered))
        own = {bytes.fromhex(id) for id in offered}
        others = ((tally.nodes, id) for id, tally in self._tally.models.items() if id not in own)
        busiest = [id.hex() for _, id in heapq.nlargest(room, others)]
        return [*offered[:MODELS], *busiest]

    def _model(self, id: str) -> _Made:
        tally, offered = self._of(id), self.offered.get(id)
        made = self._made.get(id)
        if (
            made is not None
            and made.tally is tally
            and made.changes == tally.changes
            and made.offered == offered
        ):
            return made
        return _Made(tally, tally.changes, offered, _view(id, tally, offered))


def judged(models: Sequence[ModelView]) -> list[ModelView]:
    """Those by which the network is judged: the relay's own, whose number of blocks is known. One
    that offers none goes by what is announced."""
    return [model for model in models if model.name] or list(models)


def _view(id: str, tally: ModelTally, offered: Model | None) -> ModelView:
    # A model that is not known here ends where the last announcement does, for all we know.
    blocks, rates = tally.blocks(offered.blocks if offered is not None else tally.last)
    missing = blocks.count(0)
    thin_below = max(_FEWEST, -(-int(median(blocks or [0])) // 4))
    state: ModelState = "whole" if blocks and not missing else "gaps" if any(blocks) else "idle"
    return ModelView(
        id=id,
        name=offered.name if offered is not None else "",
        state=state,
        nodes=tally.nodes,
        fetching=tally.fetching,
        blocks=blocks,
        rates=[_rounded(rate) for rate in rates],
        rate=_rounded(min(rates, default=0)),
        missing=missing,
        thin=sum(0 < nodes < thin_below for nodes in blocks),
        thin_below=thin_below,
        engines=dict(sorted(tally.engines.items())),
    )


def _rounded(thousandths: int) -> float:
    """Three digits: a measurement is no better, and small changes need not be told."""
    return float(f"{thousandths / 1000:.3g}")
