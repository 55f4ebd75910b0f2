"""The two databases that a relay's state may lie in, as SQLAlchemy engines that behave alike.

A connection says by the execution option `access` what it is for: "read" sees one moment and
waits for nobody, "write" is all or nothing, "migrate" has the schema for itself.
"""

from __future__ import annotations

import sqlite3
import ssl
import time
from pathlib import Path
from typing import Any, Final, Literal

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from pyodide_node.errors import ConfigError

__all__ = ["Access", "check_database", "postgresql", "reason", "shown", "sqlite"]

Access = Literal["read", "write", "migrate"]

_PATIENCE: Final = 10.0
"""Seconds to wait for a server that is silent, or for one of its connections."""

_SLOW_DISK: Final = 30.0
"""Seconds to wait for who is writing the file: disks stall under load for longer than servers."""

_MIGRATING: Final = int.from_bytes(b"kwaainet", "big")
"""Of PostgreSQL's advisory locks, the one that relays hold while they change the schema."""

_CONNECTIONS: Final = 8
"""To a PostgreSQL server; its own limit is 100 for everybody."""

_KNOWN: Final = frozenset({"host", "sslmode", "sslrootcert", "application_name"})


def check_database(url: str) -> URL:
    """The parsed URL. Raises ConfigError, which does not repeat a password."""
    try:
        parsed = make_url(url)
        found = parsed.port  # an odd one is found out here
    except (ArgumentError, ValueError):
        found, parsed = None, URL.create("")
    if parsed.drivername not in ("postgresql", "postgres") or not parsed.database:
        raise ConfigError(
            "the database must be named as postgresql://USER:PASSWORD@HOST/NAME; without one the"
            " state is a file of SQLite",
            setting="database",
        )
    odd = sorted(set(parsed.query) - _KNOWN)
    if odd:
        raise ConfigError(
            f"{odd[0]!r} is nothing that the database's URL may say; it may say:"
            f" {', '.join(sorted(_KNOWN))}",
            setting="database",
        )
    return parsed.set(port=found)


def shown(url: URL) -> str:
    """For people and logs: without the password."""
    return url.render_as_string(hide_password=True)


def sqlite(path: Path) -> Engine:
    """One file, written ahead (WAL): commands and the relay have it open at the same time."""
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"timeout": _SLOW_DISK},
        hide_parameters=True,
        pool_size=1,  # SQLite has one writer anyway, and waiting for it here is cheaper
        max_overflow=0,
        pool_timeout=_SLOW_DISK,
    )

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # it would begin transactions by itself
        _write_ahead(connection)
        for pragma in ("synchronous = NORMAL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        reads = connection.get_execution_options().get("access") == "read"
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _write_ahead(connection: sqlite3.Connection) -> None:
    """The change of a new file to WAL does not wait for who is changing it, as all else does."""
    deadline = time.monotonic() + _SLOW_DISK
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def postgresql(url: URL) -> Engine:
    """A PostgreSQL server, by pg8000. Raises ConfigError."""
    try:
        import pg8000  # noqa: F401 - of an extra of the package
    except ModuleNotFoundError:
        raise ConfigError(
            "PostgreSQL needs its extra: pip install 'kwaainet[postgres]'", setting="database"
        ) from None
    engine = create_engine(
        url.set(drivername="postgresql+pg8000", query={}),
        connect_args=_connect_arguments(url),
        hide_parameters=True,
        pool_size=_CONNECTIONS,
        max_overflow=0,
        pool_timeout=_PATIENCE,
        pool_pre_ping=True,  # the server may have been restarted
    )

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        match connection.get_execution_options().get("access"):
            case "read":
                connection.exec_driver_sql(
                    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
                )
            case "migrate":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATING})")

    return engine


def _connect_arguments(url: URL) -> dict[str, Any]:
    """What libpq's URLs say, in pg8000's words. Raises ConfigError."""
    query = {name: value for name, value in url.query.items() if isinstance(value, str)}
    more: dict[str, Any] = {"timeout": _PATIENCE}
    if "application_name" in query:
        more["application_name"] = query["application_name"]
    folder = query.get("host", "")
    if folder.startswith("/"):
        more["unix_sock"] = f"{folder}/.s.PGSQL.{url.port or 5432}"
        return more
    if folder:
        more["host"] = folder
    mode, root = query.get("sslmode", "prefer"), query.get("sslrootcert")
    match mode:
        case "disable":
            more["ssl_context"] = False
        case "allow" | "prefer":
            pass  # TLS where the server has it, whoever that is
        case "require":
            more["ssl_context"] = True
        case "verify-ca" | "verify-full":
            try:
                context = ssl.create_default_context(cafile=root)
            except OSError as error:
                raise ConfigError(
                    f"sslrootcert={root} cannot be read: {error}", setting="database"
                ) from error
            context.check_hostname = mode == "verify-full"
            more["ssl_context"] = context
        case _:
            raise ConfigError(
                f"sslmode={mode} is not known; take disable, prefer, require, verify-ca or"
                " verify-full",
                setting="database",
            )
    return more


def reason(error: SQLAlchemyError) -> str:
    """What the database itself says, in one line."""
    origin = error.orig if isinstance(error, DBAPIError) else None
    said: Any = origin.args[0] if origin is not None and origin.args else str(error)
    if isinstance(said, dict):  # the fields of PostgreSQL's ErrorResponse
        said = said.get("M", said)
    return " ".join(str(said).split())
