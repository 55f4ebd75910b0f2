"""Where parts come from by HTTP: mirrors of the model's folder, and IPFS gateways.

A source that sends what is not its hash is given up for this model; one that does not answer is
passed over for a while.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from pyodide_node.delivery.parts import Part
from pyodide_node.errors import RemoteError
from pyodide_node.model.pieces import block_cid

__all__ = ["HttpSource", "SourceKind", "gateway", "mirror"]

SourceKind = Literal["peers", "mirrors", "ipfs"]

_LIES: Final = 2
"""A damaged download is asked for once more before the source is given up."""
_FAILURES: Final = 3
"""Answers that fail one behind the other before a source is passed over."""
_PAUSE: Final = 10.0
_BANNED: Final = 600.0
"""Seconds without a source that fails, and without one that lied."""


@dataclass(slots=True, eq=False)
class HttpSource:
    """One mirror or gateway. Times are monotonic seconds."""

    kind: SourceKind
    base: str
    ranges: bool = True
    """Whether it answers with ranges, as far as is known."""
    problem: RemoteError | None = None
    """What it did last that was wrong."""
    _lies: int = 0
    _failures: int = 0
    _until: float = field(default=0.0)

    def able(self, now: float) -> bool:
        return now >= self._until

    def address(self, part: Part) -> tuple[str, int | None]:
        """URL, and offset within it, of a run that begins with this part."""
        if self.kind == "ipfs":
            return f"{self.base}{block_cid(part.sha256, part.root)}?format=raw", None
        if part.offset is None:
            return self.base + part.sha256, None
        return self.base + part.blob.sha256, part.offset

    def rested(self) -> None:
        """Something new is to be fetched: who only did not answer gets another chance."""
        if self._lies < _LIES:
            self._failures, self._until = 0, 0.0

    def worked(self) -> None:
        self._failures = 0

    def failed(self, now: float) -> None:
        self._failures += 1
        if self._failures >= _FAILURES:
            self._until = now + _PAUSE

    def lied(self, now: float) -> None:
        self._lies += 1
        if self._lies >= _LIES:
            self._until = now + _BANNED


def mirror(folder: str) -> HttpSource:
    """A folder of blobs, ending in "/"."""
    return HttpSource("mirrors", folder)


def gateway(base: str) -> HttpSource:
    """A trustless gateway (https://specs.ipfs.tech/http-gateways/trustless-gateway/)."""
    return HttpSource("ipfs", base.rstrip("/") + "/ipfs/", ranges=False)
