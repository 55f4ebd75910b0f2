"""The table of docs/NAT.md, and what it is made of."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from tests.lab.topology import KINDS

__all__ = ["HOSTS", "HostKind", "Row", "Sort", "markdown"]

HostKind = Literal["Chromium", "native"]
HOSTS: Final[tuple[HostKind, ...]] = ("Chromium", "native")
Sort = tuple[str, HostKind]
"""A kind of NAT, and what stands behind it."""

_WORDS: Final = {"relay": "WebSocket", "none": "**none**", "": "?"}


@dataclass(frozen=True)
class Row:
    """One pair: who asked whom, and by which way the answer came."""

    asker: Sort
    asked: Sort
    turn: bool
    """Whether the relay named TURN servers."""
    path: str
    """`webrtc`, `relay`, or `none` with a problem."""
    routes: frozenset[str] = frozenset()
    """What both ends know of the data channel."""
    problem: str = ""

    @property
    def way(self) -> str:
        """direct, TURN udp, TURN tcp, TURN tcp+udp where each end has its own, or WebSocket."""
        if self.path != "webrtc":
            return _WORDS[self.path]
        legs = sorted(r.removeprefix("turn-") for r in self.routes if r.startswith("turn-"))
        return f"TURN {'+'.join(legs)}" if legs else "/".join(sorted(self.routes))


def markdown(rows: Iterable[Row]) -> str:
    """Two tables, with TURN and without; a line for each two kinds of NAT."""
    return "\n".join(_lines(list(rows)))


def _lines(rows: list[Row]) -> Iterator[str]:
    for turn in (True, False):
        ways = {(row.asker, row.asked): row.way for row in rows if row.turn is turn}
        ways |= {(asked, asker): way for (asker, asked), way in ways.items()}
        titles = [f"{one} – {other}" for one, other in itertools.product(HOSTS, HOSTS)]
        yield f"| {'with TURN' if turn else 'without TURN'} | {' | '.join(titles)} |"
        yield "|---" * (len(titles) + 1) + "|"
        for one, other in itertools.combinations_with_replacement(KINDS, 2):
            cells = (ways[(one, a), (other, b)] for a, b in itertools.product(HOSTS, HOSTS))
            yield f"| {one} – {other} | {' | '.join(cells)} |"
        yield ""
