"""Whether a node is of use to the network, and since when. Sans-IO.

A node is well when it is in touch with a relay and serves blocks without a problem. While health
is watched, a node that has been unwell for long ends itself, so that the service that started it
starts it afresh.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

__all__ = ["UNWELL_LONG", "Health"]

UNWELL_LONG: Final = 300.0
"""Seconds; relays restart and machines sleep, and a node gets over both by itself."""


@dataclass(slots=True)
class Health:
    watching: bool = False
    """Whether a long illness ends the node."""
    problems: tuple[str, ...] = ("the node is starting",)
    changed: float = 0.0
    """On the caller's clock: when it last became well or unwell."""
    _now: float = 0.0

    @property
    def well(self) -> bool:
        return not self.problems

    def look(self, status: dict[str, Any], now: float) -> str:
        """Judge a status of `KwaaiNetCore`; why the node should end, or ""."""
        problems = tuple(_problems(status))
        if bool(problems) != bool(self.problems) or not self.changed:
            self.changed = now
        self.problems, self._now = problems, now
        if self.watching and problems and now - self.changed > UNWELL_LONG:
            return f"unwell for {now - self.changed:.0f} s: {'; '.join(problems)}"
        return ""

    def told(self) -> dict[str, Any]:
        """As JSON; `seconds` is how long it has been so."""
        return {
            "well": self.well,
            "problems": list(self.problems),
            "seconds": round(self._now - self.changed, 1),
            "watching": self.watching,
        }


def _problems(status: dict[str, Any]) -> list[str]:
    found = []
    if status["state"] != "ready":
        found.append(f"the node is {status['state']}")
    if not status["relay"]["connected"]:
        found.append(f"no relay: {status['relay']['error'] or 'trying'}")
    if status["span"] is None:
        found.append(status["problem"] or "no blocks are served")
    return found
