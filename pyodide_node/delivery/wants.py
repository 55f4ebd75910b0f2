"""The parts that are still to be fetched, in an order that differs from node to node."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pyodide_node.delivery.parts import Part
from pyodide_node.delivery.sources import HttpSource
from pyodide_node.model.manifest import PIECE

__all__ = ["RUN", "Want", "Wants"]

RUN = 4
"""Parts in one request: a round trip more for each four megabytes is little, and nodes that start
together have something to swap early."""


@dataclass(slots=True, eq=False)
class Want:
    """One part, and how far it is."""

    part: Part
    order: bytes
    claimed: bool = False
    by_http: bool = False
    refused: set[HttpSource | bytes] = field(default_factory=set)
    """Sources and peers that could not give this part."""
    deferred: float | None = None
    """Since when it has been left to a peer that says it is fetching it."""


class Wants:
    """By hash: equal parts are fetched once. Runs of `RUN` parts of a file stay together."""

    def __init__(self, parts: Iterable[Part], own: bytes) -> None:
        wants = [Want(part, _order(part, own)) for part in parts]
        wants.sort(key=lambda want: (want.order, want.part.number))
        self._wants: dict[str, Want] = {}
        for want in wants:
            self._wants.setdefault(want.part.sha256, want)
        self._places = {(want.part.blob.sha256, want.part.number): want for want in wants}
        self.size = sum(want.part.size for want in self)
        """Bytes of all of them, at the beginning."""

    def __iter__(self) -> Iterator[Want]:
        return iter(self._wants.values())

    def __len__(self) -> int:
        return len(self._wants)

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._wants

    def done(self, sha256: str) -> bool:
        """Whether it was still wanted."""
        return self._wants.pop(sha256, None) is not None

    def after(self, want: Want) -> Want | None:
        """The part that lies behind this one in the file, if it is still wanted by nobody else."""
        found = self._places.get((want.part.blob.sha256, want.part.number + 1))
        if found is None or found.claimed or found.part.sha256 not in self._wants:
            return None
        return found


def _order(part: Part, own: bytes) -> bytes:
    run = (part.offset or 0) // PIECE // RUN
    return hashlib.sha256(own + f"{part.blob.sha256}{part.root}{run}".encode()).digest()
