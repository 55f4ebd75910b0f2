"""This machine's clock, as the `Clock` port."""

from __future__ import annotations

import time

__all__ = ["SystemClock"]


class SystemClock:
    def wall(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()
