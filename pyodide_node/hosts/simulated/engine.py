"""Placeholder of the simulated engine: it loads nothing yet."""

from __future__ import annotations

from pyodide_node.errors import EngineError
from pyodide_node.hosts.base import BlobReader, Ends, Span
from pyodide_node.inference.manifest import Manifest

from .network import SimulatedNetwork

__all__ = ["SimulatedEngine"]


class SimulatedEngine:
    """See `base.Engine`."""

    name = "simulated"
    expanded = False

    def __init__(self, network: SimulatedNetwork, here: str) -> None:
        self._network = network
        self._here = here

    async def load_span(self, manifest: Manifest, first: int, last: int, blob: BlobReader) -> Span:
        raise EngineError("the simulated engine loads nothing yet")

    async def load_ends(self, manifest: Manifest, blob: BlobReader) -> Ends:
        raise EngineError("the simulated engine loads nothing yet")
