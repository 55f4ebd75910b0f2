"""How fast this machine and its line are: measured once, kept for the next start."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from pyodide_node.wire.malformed import MALFORMED

__all__ = ["Speed", "Speeds", "engine_speed", "line_speed_to"]

_DAY: Final = 86_400.0
_FRESH: Final = 30 * _DAY
"""Seconds after which an engine is measured anew: machines get slower, engines faster."""
_LINE_FRESH: Final = _DAY
"""The same for a line: machines move."""
_LINE: Final = "line/"


class Speed(Struct, frozen=True):
    """What was measured."""

    rate: float
    """Of an engine positions through one block a second, whatever the cpu cap; of a line bytes a
    second."""
    when: float
    """Seconds since 1970."""


def engine_speed(model: str, engine: str, threads: int) -> str:
    """The name of a measurement."""
    return f"{model}/{engine}/{threads}"


def line_speed_to(relay: str) -> str:
    """The name of a measurement."""
    return f"{_LINE}{relay}"


class Speeds:
    """Measurements in one file, by their names."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def find(self, name: str) -> Speed | None:
        """None also when it is too old."""
        speed = self._read().get(name)
        fresh = _LINE_FRESH if name.startswith(_LINE) else _FRESH
        return speed if speed and time.time() - speed.when < fresh else None

    def keep(self, name: str, rate: float) -> None:
        speeds = self._read() | {name: Speed(rate, time.time())}
        draft = self._path.with_suffix(".part")
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(speeds)))
        draft.replace(self._path)

    def _read(self) -> dict[str, Speed]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, Speed])
        except (OSError, *MALFORMED):
            return {}
