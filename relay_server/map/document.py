"""The map as others read it: `/map.json` and the feed. docs/MAP.md describes every field.

Numbers only, and names of this relay's own choosing: nothing that a stranger wrote is repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from msgspec import Struct

__all__ = [
    "FORMAT",
    "Change",
    "MapDocument",
    "ModelView",
    "RelayView",
    "Snapshot",
    "SpanView",
    "Totals",
]

FORMAT: Final = 1
"""Raised when a field changes its meaning or goes; new fields may come at any time."""

ModelState = Literal["whole", "gaps", "idle"]
NetworkState = Literal["up", "gaps", "idle"]


class SpanView(Struct, frozen=True, array_like=True):
    """[first, last, nodes, rate]: nodes that announce exactly the blocks [first, last)."""

    first: int
    last: int
    nodes: int
    rate: float
    """Positions a second through the span, of all of them together."""


class ModelView(Struct, frozen=True, kw_only=True):
    """One model. Rates are in positions a second, as announced."""

    id: str
    """sha256 of its manifest, in hex."""
    name: str
    """As this relay offers it; "" when it does not."""
    state: ModelState
    """whole: every block is served; gaps: some are; idle: none is. Where the name is "", a model
    is taken to end with the last block that is announced."""
    nodes: int
    fetching: int
    blocks: list[int]
    """Nodes that serve each block."""
    rates: list[float]
    """What they do together, of each block."""
    rate: float
    """Of the slowest block: what all askers together can get at most."""
    missing: int
    """Blocks that nobody serves."""
    thin: int
    """Blocks that somebody serves, but fewer than `thin_below`."""
    thin_below: int
    engines: dict[str, int]
    """Nodes by engine."""


class Totals(Struct, frozen=True, kw_only=True):
    state: NetworkState
    """up: a model is whole; gaps: nodes serve, none is; idle: no node serves. A relay that offers
    models goes by those."""
    nodes: int
    """Nodes that serve at least one block."""
    fetching: int
    """Nodes that serve none yet: they fetch their files."""
    connected: int
    """Connections to this relay, also of those who only ask."""
    hosts: dict[str, int]
    """Serving nodes by kind: tab, native, simulated."""
    engines: dict[str, int]
    throughput: float
    """Positions through one block that all of them do together, a second."""
    models: int
    """Models that are offered here or served by somebody; at most MODELS of them are listed."""
    whole: int
    """Of those by which the state is told."""


class RelayView(Struct, frozen=True, kw_only=True):
    name: str
    """As host or host:port; "" for this one when its operator gave it none."""
    own: bool
    """Whether it is the one that tells this."""
    nodes: int
    """Connections to this one; nodes that another one announces."""


class MapDocument(Struct, frozen=True, kw_only=True):
    """`/map.json`."""

    format: int = FORMAT
    time: float
    """Of the last change, in seconds since 1970."""
    totals: Totals
    models: Sequence[ModelView]
    """Those offered here first; of them whole ones first, then by nodes."""
    spans: dict[str, list[SpanView]]
    """By model; of each at most SPANS, those of most nodes first."""
    relays: Sequence[RelayView]


class Snapshot(Struct, frozen=True, kw_only=True, tag="map"):
    """The feed's first message: all but the spans."""

    format: int = FORMAT
    time: float
    totals: Totals
    models: Sequence[ModelView]
    relays: Sequence[RelayView]


class Change(Struct, frozen=True, kw_only=True, tag="change", omit_defaults=True):
    """What is different since the last message. Lists are whole: they replace what was there."""

    time: float
    totals: Totals
    models: list[ModelView] = []
    """Those that are different or new."""
    order: list[str] | None = None
    """Ids of all listed models in their order, where that is not what it was."""
    relays: list[RelayView] | None = None
