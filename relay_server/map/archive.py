"""The history outlives the relay: one row a minute in its SQLite file.

It is of this relay alone, so it lies there also where the state is in a PostgreSQL database that
several relays share.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy import text

from relay_server.map.history import EVERY, LENGTH, Sample
from relay_server.state import State

__all__ = ["Archive"]

_FIELDS: Final = Sample.__struct_fields__
_READ: Final = text(
    f"SELECT {', '.join(_FIELDS)} FROM map_history WHERE time > :since ORDER BY time"  # noqa: S608 - our own names
)
_KEEP: Final = text(
    f"INSERT INTO map_history ({', '.join(_FIELDS)}) VALUES (:{', :'.join(_FIELDS)})"  # noqa: S608
    " ON CONFLICT (time) DO NOTHING"
)
_FORGET: Final = text("DELETE FROM map_history WHERE time <= :since")


class Archive:
    """Calls block, and raise StoreError. It is opened when it is first read."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._state: State | None = None

    def read(self, now: float) -> list[Sample]:
        """Those of the last day, oldest first."""
        with self._opened().reading() as connection:
            rows = connection.execute(_READ, {"since": _day_before(now)})
            return [Sample(*row) for row in rows]

    def keep(self, sample: Sample) -> None:
        """Add one, and drop those that are too old."""
        with self._opened().transaction() as connection:
            connection.execute(_KEEP, msgspec.structs.asdict(sample))
            connection.execute(_FORGET, {"since": _day_before(sample.time)})

    def close(self) -> None:
        if self._state is not None:
            self._state.close()

    def _opened(self) -> State:
        if self._state is None:
            self._state = State(self._directory)
        return self._state


def _day_before(now: float) -> int:
    return int(now) - EVERY * LENGTH
