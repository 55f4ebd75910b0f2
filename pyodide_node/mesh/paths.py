"""Which way a message goes: data channel or relay, by measured time. Sans-IO."""

from __future__ import annotations

from typing import Literal

__all__ = ["Path", "PathChooser", "PathPolicy"]

Path = Literal["webrtc", "relay", "local"]
PathPolicy = Literal["auto", "webrtc", "relay"]

_SMOOTHING = 0.3
"""Weight of a new measurement: steady within a few, quick to notice a change."""

_BANDWIDTH: dict[Path, float] = {"webrtc": 20e6, "relay": 16e6, "local": 1e12}
"""Bytes a second at most, on machines of today."""

_CHANNEL_WINDOW = 100_000
"""Bytes a data channel moves in one round trip: its SCTP window, whatever the line could do."""

_RELAY_COST = 0.010
"""Seconds by which the relay must be faster to be chosen: it is shared by all."""

_UNKNOWN_RTT: dict[Path, float] = {"webrtc": 0.05, "relay": 0.1, "local": 0.0}
"""Seconds until measured: a direct path is taken to be the shorter one."""


class PathChooser:
    """Knows the paths to one peer; times in seconds, sizes in bytes."""

    def __init__(self, policy: PathPolicy) -> None:
        self._policy = policy
        self._rtt: dict[Path, float] = {}

    def measured(self, path: Path, rtt: float) -> None:
        """A ping came back by `path`."""
        old = self._rtt.get(path, rtt)
        self._rtt[path] = old + _SMOOTHING * (rtt - old)

    def forget(self, path: Path) -> None:
        self._rtt.pop(path, None)

    def rtt(self, path: Path) -> float | None:
        return self._rtt.get(path)

    def expected(self, path: Path, size: int) -> float:
        """Seconds for a message of `size` one way."""
        rtt = self._rtt.get(path, _UNKNOWN_RTT[path])
        bandwidth = _BANDWIDTH[path]
        if path == "webrtc" and rtt > 0:
            bandwidth = min(bandwidth, _CHANNEL_WINDOW / rtt)
        return rtt / 2 + size / bandwidth + (_RELAY_COST if path == "relay" else 0.0)

    def choose(self, size: int, *, channel: bool, relay: bool) -> Path | None:
        """The path for a message of `size`; None when the policy allows none that is open."""
        usable: list[Path] = []
        if channel and self._policy != "relay":
            usable.append("webrtc")
        if relay and self._policy != "webrtc":
            usable.append("relay")
        return min(usable, key=lambda path: self.expected(path, size), default=None)
