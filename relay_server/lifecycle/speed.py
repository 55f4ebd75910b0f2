"""How fast this machine runs a model: measured once, kept for the next start."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from pyodide_node.wire.malformed import MALFORMED

__all__ = ["Speed", "Speeds"]

_FRESH: Final = 30 * 86_400.0
"""Seconds after which a measurement is made anew: machines get slower, engines faster."""


class Speed(Struct, frozen=True):
    """What was measured."""

    rate: float
    """Positions through one block a second, whatever the cpu cap."""
    when: float
    """Seconds since 1970."""


class Speeds:
    """Measurements in one file, by model, engine and threads."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def find(self, model: str, engine: str, threads: int) -> Speed | None:
        speed = self._read().get(f"{model}/{engine}/{threads}")
        return speed if speed and time.time() - speed.when < _FRESH else None

    def keep(self, model: str, engine: str, threads: int, speed: Speed) -> None:
        speeds = self._read() | {f"{model}/{engine}/{threads}": speed}
        draft = self._path.with_suffix(".part")
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(speeds)))
        draft.replace(self._path)

    def _read(self) -> dict[str, Speed]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, Speed])
        except (OSError, *MALFORMED):
            return {}
