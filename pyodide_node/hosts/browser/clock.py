"""The browser's clocks."""

from __future__ import annotations

import time

__all__ = ["BrowserClock"]


class BrowserClock:
    """See `base.Clock`."""

    def wall(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()
