"""What went on, once a minute: refusals one by one would let anybody fill the log."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from relay_server.hub import Hub

__all__ = ["EVERY", "Traffic"]

EVERY: Final = 60.0
"""Seconds."""

_NUMBERS: Final = (
    "entered",
    "published",
    "forwarded_frames",
    "forwarded_bytes",
    "throttled",
    "stun_answers",
    "file_bytes",
    "state_errors",
)
_REASONS: Final = ("refused", "undelivered")


class Traffic:
    """Sans-IO: `look` often, and log what it gives."""

    def __init__(self, hub: Hub, now: float) -> None:
        self._hub = hub
        self._since = now
        self._numbers: Counter[str] = Counter()
        self._reasons: dict[str, Counter[str]] = {name: Counter() for name in _REASONS}

    def look(self, now: float) -> dict[str, Any] | None:
        """The fields of one event when a minute is over in which anything happened."""
        if now - self._since < EVERY:
            return None
        seconds, self._since = now - self._since, now
        counters = self._hub.counters
        numbers = Counter({name: getattr(counters, name) for name in _NUMBERS})
        fields: dict[str, Any] = dict(numbers - self._numbers)
        self._numbers = numbers
        for name, former in self._reasons.items():
            found = Counter(getattr(counters, name))
            if more := found - former:
                fields[name] = dict(sorted(more.items()))
            self._reasons[name] = found
        if not fields:
            return None
        return {"seconds": round(seconds), "nodes": len(self._hub), **fields}
