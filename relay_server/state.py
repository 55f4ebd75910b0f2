"""What a relay remembers between its runs: one SQLite file, brought up to date when it is opened.

Commands that an operator types and the relay itself have it open at the same time. It is written
ahead (WAL), so a relay that is killed loses nothing that was committed.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final

from pyodide_node.errors import StoreError

__all__ = ["MIGRATIONS", "State"]

FILE: Final = "relay.sqlite3"

_PATIENCE: Final = 10.0
"""Seconds to wait for another process that is writing."""

MIGRATIONS: Final[Sequence[str]] = (
    """
    CREATE TABLE api_keys (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        hash BLOB NOT NULL,
        tokens_per_day INTEGER,
        requests_per_minute INTEGER,
        created REAL NOT NULL,
        revoked REAL,
        rate_state REAL NOT NULL DEFAULT 0
    );
    CREATE UNIQUE INDEX api_keys_in_use ON api_keys (name) WHERE revoked IS NULL;
    CREATE TABLE api_usage (
        key TEXT NOT NULL REFERENCES api_keys (id),
        day TEXT NOT NULL,
        requests INTEGER NOT NULL DEFAULT 0,
        prompt_tokens INTEGER NOT NULL DEFAULT 0,
        completion_tokens INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (key, day)
    );
    """,
)
"""Each brings the schema from the version that is its index to the next. Only ever append."""


class State:
    """`with State(directory) as state`. Calls block: from an event loop, make them in a thread."""

    def __init__(self, directory: Path, migrations: Sequence[str] = MIGRATIONS) -> None:
        """Raises StoreError when the file cannot be opened or is of a newer version."""
        self._path = directory / FILE
        self._lock = threading.Lock()
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._connection = sqlite3.connect(
                self._path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{self._path} cannot be opened: {error}") from error
        try:
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute("PRAGMA foreign_keys = ON")
            self._migrate(migrations)
        except sqlite3.Error as error:
            self.close()
            raise StoreError(f"{self._path} cannot be used: {error}") from error
        except StoreError:
            self.close()
            raise

    def __enter__(self) -> State:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One view of it all, without waiting for who writes. Raises StoreError."""
        with self._within("BEGIN", "cannot be read") as connection:
            yield connection

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing, and no other process writes between. Raises StoreError."""
        with self._within("BEGIN IMMEDIATE", "cannot be written") as connection:
            yield connection

    @contextmanager
    def _within(self, begin: str, problem: str) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._connection.execute(begin)
                try:
                    yield self._connection
                except BaseException:
                    self._connection.execute("ROLLBACK")
                    raise
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise StoreError(f"{self._path} {problem}: {error}") from error

    def _migrate(self, migrations: Sequence[str]) -> None:
        with self.transaction() as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS migrations"
                " (version INTEGER PRIMARY KEY, applied REAL NOT NULL)"
            )
            (done,) = connection.execute("SELECT max(version) FROM migrations").fetchone()
            version = done or 0
            if version > len(migrations):
                raise StoreError(
                    f"{self._path} is of version {version} and this relay knows"
                    f" {len(migrations)}; install the newer kwaainet again, or restore the backup"
                )
            for number, script in enumerate(migrations[version:], version + 1):
                for statement in filter(str.strip, script.split(";")):
                    connection.execute(statement)
                connection.execute("INSERT INTO migrations VALUES (?, ?)", (number, time.time()))
