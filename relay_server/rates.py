"""A rate limit that keeps one number: the generic cell rate algorithm (ITU-T I.371)."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Rate"]


@dataclass(frozen=True, slots=True)
class Rate:
    """`per_second` units on average, `burst` of them at once.

    The state is a time, kept by whoever is limited: 0.0 at first.
    """

    per_second: float
    burst: float

    def spend(self, state: float, now: float, units: float = 1.0) -> float:
        """The new state after `units` at `now`."""
        return (state if state > now else now) + units / self.per_second

    def excess(self, state: float, now: float) -> float:
        """Seconds until the spender is within the limit again; not positive while it is."""
        return state - now - self.burst / self.per_second
