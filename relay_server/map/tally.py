"""What the network serves, counted as announcements come and go. Sans-IO.

One change of a directory costs the same whatever the number of nodes. Nothing here knows who a
node is: announcements are summed up and forgotten.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from itertools import accumulate
from typing import Final, TypeVar, get_args

from pyodide_node.hosts.base import EngineName
from pyodide_node.mesh.announcement import Announcement
from pyodide_node.mesh.directory import Entry

__all__ = ["OTHER", "ModelTally", "Tally"]

OTHER: Final = "other"
"""Engines that are not ours: what strangers call theirs is their text, and not shown."""

_ENGINES: Final = frozenset(get_args(EngineName))

Span = tuple[int, int]
_K = TypeVar("_K", bound=Hashable)


class ModelTally:
    """The nodes of one model. Rates are in thousandths: sums of integers come back to zero."""

    __slots__ = ("_edges", "changes", "engines", "fetching", "nodes", "spans")

    def __init__(self) -> None:
        self.changes = 0
        """How often it was counted: what was made of it holds as long as this is the same."""
        self.nodes = 0
        """Nodes that run at least one block."""
        self.fetching = 0
        """Nodes that run none yet."""
        self.engines: Counter[str] = Counter()
        self.spans: dict[Span, tuple[int, int]] = {}
        """[first, last) to its nodes and their positions through it, in thousandths a second."""
        self._edges: dict[int, tuple[int, int]] = {}
        """By how much both change at a block's beginning."""

    def __bool__(self) -> bool:
        return bool(self.nodes or self.fetching)

    def count(self, said: Announcement, step: int) -> None:
        """Add an announcement (`step` 1), or take it away again (-1)."""
        self.changes += 1
        if not said.serves:
            self.fetching += step
            return
        self.nodes += step
        _add(self.engines, engine_of(said), step)
        rate = step * rate_of(said)
        span = (said.first, said.last)
        _shift(self.spans, span, step, rate)
        _shift(self._edges, said.first, step, rate)
        _shift(self._edges, said.last, -step, -rate)

    @property
    def last(self) -> int:
        """One past the highest block that is served."""
        return max(self._edges, default=0)

    def blocks(self, count: int) -> tuple[list[int], list[int]]:
        """Of each of the first `count` blocks its nodes and their rate, as in `spans`."""
        edges = [self._edges.get(block, (0, 0)) for block in range(count)]
        return (
            list(accumulate(nodes for nodes, _ in edges)),
            list(accumulate(rate for _, rate in edges)),
        )


class Tally:
    """The whole network. `watch` belongs to a `Directory`; `changed` is called after a change."""

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self.changed = changed
        self.models: dict[bytes, ModelTally] = {}
        self.hosts: Counter[str] = Counter()
        """Serving nodes by kind: tab, native, simulated."""
        self.engines: Counter[str] = Counter()
        self.throughput = 0
        """Positions through one block that all nodes do, in thousandths a second."""
        self.fetching = 0

    @property
    def nodes(self) -> int:
        return self.hosts.total()

    def watch(self, old: Entry | None, new: Entry | None) -> None:
        """A peer's announcement came (`old` is None), changed, or went (`new` is None)."""
        before = old.announcement if old is not None else None
        after = new.announcement if new is not None else None
        if before is not None and after is not None and _counted(before) == _counted(after):
            return  # as most are: nodes repeat themselves every 120 s
        for said, step in ((before, -1), (after, 1)):
            if said is not None:
                self._count(said, step)
        self.changed()

    def _count(self, said: Announcement, step: int) -> None:
        model = self.models.setdefault(said.model, ModelTally())
        model.count(said, step)
        if not model:
            del self.models[said.model]
        if not said.serves:
            self.fetching += step
            return
        _add(self.hosts, said.host, step)
        _add(self.engines, engine_of(said), step)
        self.throughput += step * round(said.throughput * 1000)


def engine_of(said: Announcement) -> str:
    return said.engine if said.engine in _ENGINES else OTHER


def rate_of(said: Announcement) -> int:
    """Positions through all of a node's blocks, in thousandths a second."""
    return round(said.throughput * 1000 / (said.last - said.first))


def _counted(said: Announcement) -> tuple[object, ...]:
    """All of an announcement that is counted."""
    return said.model, said.first, said.last, said.throughput, said.engine, said.host


def _add(counter: Counter[str], name: str, step: int) -> None:
    counter[name] += step
    if not counter[name]:
        del counter[name]


def _shift(sums: dict[_K, tuple[int, int]], key: _K, nodes: int, rate: int) -> None:
    old_nodes, old_rate = sums.get(key, (0, 0))
    new = (old_nodes + nodes, old_rate + rate)
    if any(new):
        sums[key] = new
    else:
        sums.pop(key, None)
