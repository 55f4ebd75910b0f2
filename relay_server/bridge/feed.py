"""What a relay's network serves, from the map that it shows to everybody."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from pyodide_node.errors import ManifestError, Unreachable
from pyodide_node.hosts.native.web import get
from pyodide_node.wire.malformed import MALFORMED
from relay_server.bridge import limits

__all__ = ["Served", "parse_map", "read_map"]

_Rate = Annotated[float, Meta(ge=0, lt=1e12)]


@dataclass(frozen=True, slots=True)
class Served:
    """A model that somebody serves at least a block of."""

    id: str
    """sha256 of its manifest, in hex."""
    name: str
    """As the relay calls it, or ""."""
    nodes: Sequence[int]
    """How many serve each block."""
    rates: Sequence[float]
    """Positions a second of all of them together, through each block."""

    def runs(self) -> list[tuple[int, int]]:
        """The blocks [first, last) that are served, in as few pieces as there are gaps."""
        found: list[tuple[int, int]] = []
        for block, nodes in enumerate(self.nodes):
            if not nodes:
                continue
            if found and found[-1][1] == block:
                found[-1] = (found[-1][0], block + 1)
            else:
                found.append((block, block + 1))
        return found


class _Model(Struct, frozen=True):
    id: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    name: Annotated[str, Meta(max_length=200)]
    blocks: Annotated[list[Annotated[int, Meta(ge=0)]], Meta(max_length=1024)]
    rates: Annotated[list[_Rate], Meta(max_length=1024)]


class _Map(Struct, frozen=True):
    models: Annotated[list[_Model], Meta(max_length=1000)]


def read_map(relay: str, models: int) -> list[Served]:
    """What the relay at `relay`, as "https://host", tells. Blocks: call it in a thread.

    `models` bounds how many are taken, those that the relay names first. Raises Unreachable,
    ManifestError.
    """
    data = b"".join(get(f"{relay}/map.json", limits.MAP + 1, threading.Event()))
    if len(data) > limits.MAP:
        raise Unreachable(f"the map of {relay} is longer than {limits.MAP} bytes", url=relay)
    return parse_map(data, models)


def parse_map(data: bytes, models: int) -> list[Served]:
    """Raises ManifestError."""
    try:
        told = msgspec.json.decode(data, type=_Map)
    except MALFORMED as error:
        raise ManifestError(f"the relay's map is malformed: {error}") from None
    served = []
    for model in told.models:
        if len(model.blocks) != len(model.rates):
            raise ManifestError("the relay's map has blocks without rates", model=model.id)
        if any(model.blocks):
            served.append(Served(model.id, model.name, model.blocks, model.rates))
    return served[:models]
