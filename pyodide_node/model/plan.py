"""What a node of some memory would do with a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyodide_node.budget import RUNTIME_MEMORY
from pyodide_node.hosts.base import EngineName, HostKind
from pyodide_node.model.ends import EndsFootprint, choose_ends
from pyodide_node.model.footprint import Footprint, best_engine
from pyodide_node.model.manifest import Manifest

__all__ = ["Plan", "plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    """As nodes themselves decide."""

    engine: EngineName
    """Of the blocks."""
    ends: EndsFootprint | None
    """Of embedding and head; None: they do not fit, so the node serves blocks and cannot ask."""
    blocks: int
    """None of them: the node asks, and serves nothing."""
    free: int
    """Bytes left for blocks and sessions by the runtime and by embedding and head."""


def plan(
    manifest: Manifest,
    engines: Sequence[EngineName],
    kind: HostKind,
    memory: int,
    *,
    most: int | None = None,
) -> Plan:
    """For a node whose memory cap is `memory` bytes, and which has storage; `engines` are those it
    has, fastest first."""
    free, spare = memory - RUNTIME_MEMORY[kind], 0
    ends = choose_ends(manifest, engines, free)
    if ends is not None:
        free, spare = free - ends.held, ends.spare
    engine = best_engine(manifest, engines, free, most, spare)
    blocks = Footprint(manifest, engine).room(free, most, spare)
    if not blocks:  # embedding and head are loaded first, and need no more room later
        engine = best_engine(manifest, engines, free, most)
        blocks = Footprint(manifest, engine).room(free, most)
    return Plan(engine, ends, blocks, max(0, free))
