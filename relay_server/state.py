"""What a relay remembers between its runs, brought up to date when it is opened.

It lies in one SQLite file, or in a PostgreSQL database that several relays may share. Commands that
an operator types and the relay itself have it open at the same time. A relay that is killed loses
nothing that was committed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from pyodide_node.errors import StoreError
from relay_server.database import Access, check_database, postgresql, reason, shown, sqlite

__all__ = ["MIGRATIONS", "State"]

FILE: Final = "relay.sqlite3"

MIGRATIONS: Final[Sequence[str]] = (
    """
    CREATE TABLE api_keys (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        hash BLOB NOT NULL,
        tokens_per_day BIGINT,
        requests_per_minute BIGINT,
        created DOUBLE PRECISION NOT NULL,
        revoked DOUBLE PRECISION,
        rate_state DOUBLE PRECISION NOT NULL DEFAULT 0
    );
    CREATE UNIQUE INDEX api_keys_in_use ON api_keys (name) WHERE revoked IS NULL;
    CREATE TABLE api_usage (
        key TEXT NOT NULL REFERENCES api_keys (id),
        day TEXT NOT NULL,
        requests BIGINT NOT NULL DEFAULT 0,
        prompt_tokens BIGINT NOT NULL DEFAULT 0,
        completion_tokens BIGINT NOT NULL DEFAULT 0,
        PRIMARY KEY (key, day)
    );
    """,
    """
    CREATE TABLE map_history (
        time BIGINT PRIMARY KEY,
        nodes BIGINT NOT NULL,
        whole BIGINT NOT NULL,
        covered BIGINT NOT NULL,
        blocks BIGINT NOT NULL,
        throughput DOUBLE PRECISION NOT NULL,
        answers BIGINT NOT NULL,
        tokens BIGINT NOT NULL,
        forwarded BIGINT NOT NULL
    );
    """,
)
"""Each brings the schema from the version that is its index to the next. Only ever append.

SQL that SQLite and PostgreSQL both take, but for a BLOB, which is called BYTEA there. No `;` but
between statements.
"""


class State:
    """`with State(directory) as state`. Calls block: from an event loop, make them in a thread."""

    def __init__(
        self,
        directory: Path,
        migrations: Sequence[str] = MIGRATIONS,
        *,
        database: str = "",
        failed: Callable[[str], None] = lambda why: None,
    ) -> None:
        """In `directory`, or in the PostgreSQL database of that URL. `failed` is told why, on any
        thread, whenever it cannot be read or written.

        Raises StoreError when it cannot be opened or is of a newer version, ConfigError for a URL
        that is none.
        """
        self._failed = failed
        if database:
            url = check_database(database)
            self.place = shown(url)
            self._engine = postgresql(url)
        else:
            self.place = str(directory / FILE)
            try:
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            except OSError as error:
                raise StoreError(f"{self.place} cannot be opened: {error}") from error
            self._engine = sqlite(directory / FILE)
        try:
            self._migrate(migrations)
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
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One view of it all, without waiting for who writes. Raises StoreError."""
        with self._within("read", "cannot be read") as connection:
            yield connection

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """All of it or nothing. Raises StoreError.

        In SQLite no other process writes between. In PostgreSQL only rows that were written to are
        locked: what is read to be changed must be written to first.
        """
        with self._within("write", "cannot be written") as connection:
            yield connection

    @contextmanager
    def _within(self, access: Access, problem: str) -> Iterator[Connection]:
        try:
            with (
                self._connected() as connection,
                connection.execution_options(access=access).begin(),
            ):
                yield connection
        except SQLAlchemyError as error:
            raise self._failure(problem, reason(error)) from error

    def _connected(self) -> Connection:
        try:
            return self._engine.connect()
        except OSError as error:  # pg8000 lets those of TLS through
            raise self._failure("cannot be reached", str(error)) from error

    def _failure(self, problem: str, why: str) -> StoreError:
        self._failed(why)
        return StoreError(f"{self.place} {problem}: {why}")

    def _version(self) -> int:
        with self._within("read", "cannot be opened") as connection:
            if not inspect(connection).has_table("migrations"):
                return 0
            return connection.execute(text("SELECT max(version) FROM migrations")).scalar() or 0

    def _migrate(self, migrations: Sequence[str]) -> None:
        """Several relays may start at once: one of them does it, the others wait."""
        if self._version() == len(migrations):
            return  # and waits for nobody
        with self._within("migrate", "cannot be opened") as connection:
            connection.exec_driver_sql(
                "CREATE TABLE IF NOT EXISTS migrations"
                " (version BIGINT PRIMARY KEY, applied DOUBLE PRECISION NOT NULL)"
            )
            done = connection.execute(text("SELECT max(version) FROM migrations")).scalar()
            version = done or 0
            if version > len(migrations):
                raise StoreError(
                    f"{self.place} is of version {version} and this relay knows"
                    f" {len(migrations)}; install the newer kwaainet again, or restore the backup"
                )
            for number, script in enumerate(migrations[version:], version + 1):
                if connection.dialect.name == "postgresql":
                    script = script.replace(" BLOB", " BYTEA")
                for statement in filter(str.strip, script.split(";")):
                    connection.exec_driver_sql(statement)
                connection.execute(
                    text("INSERT INTO migrations VALUES (:version, :applied)"),
                    {"version": number, "applied": time.time()},
                )
