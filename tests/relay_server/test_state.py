"""The relay's state: made, brought up to date, and kept whole, in either database."""

from __future__ import annotations

import dataclasses
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from sqlalchemy import text

from pyodide_node.errors import ConfigError, StoreError
from relay_server.settings import RelaySettings
from relay_server.state import FILE, MIGRATIONS, State
from tests.relay_server.databases import PASSWORD, Database, Postgres

OLD = ["CREATE TABLE notes (text TEXT NOT NULL); INSERT INTO notes VALUES ('kept');"]
NEW = [*OLD, "ALTER TABLE notes ADD COLUMN stars BIGINT NOT NULL DEFAULT 3;"]


def said(state: State, query: str = "SELECT * FROM notes") -> list[tuple[object, ...]]:
    with state.reading() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def test_it_is_made_where_there_is_none(tmp_path: Path) -> None:
    with State(tmp_path / "new" / "relay") as state:
        assert said(state, "SELECT max(version) FROM migrations") == [(len(MIGRATIONS),)]
    assert (tmp_path / "new" / "relay").stat().st_mode & 0o077 == 0


def test_what_is_there_is_brought_up_to_date_once(database: Database) -> None:
    database.open(OLD).close()
    for _ in range(2):
        with database.open(NEW) as state:
            assert said(state) == [("kept", 3)]


def test_relays_that_start_at_once_bring_it_up_to_date_once(database: Database) -> None:
    # More statements than one, so that there is a between.
    many = [*NEW, *(f"CREATE TABLE more{n} (n BIGINT NOT NULL);" for n in range(20))]
    together = Barrier(6)

    def start(_: int) -> list[tuple[object, ...]]:
        together.wait()
        with database.open(many) as state:
            return said(state, "SELECT count(*) FROM migrations")

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(start, range(6))) == [[(len(many),)]] * 6


def test_a_migration_that_fails_changes_nothing(database: Database) -> None:
    database.open(OLD).close()
    with pytest.raises(StoreError, match="cannot be"):
        database.open([*NEW, "INSERT INTO nowhere VALUES (1);"])
    with database.open(OLD) as state:
        assert said(state) == [("kept",)]


def test_a_newer_version_is_left_alone(database: Database) -> None:
    database.open(NEW).close()
    with pytest.raises(StoreError, match="newer kwaainet"):
        database.open(OLD)


def test_a_file_of_an_earlier_release_is_read_on(tmp_path: Path) -> None:
    """Their types had other names."""
    former = MIGRATIONS[0].replace("BIGINT", "INTEGER").replace("DOUBLE PRECISION", "REAL")
    State(tmp_path, [former]).close()
    with State(tmp_path) as state:
        assert said(state, "SELECT * FROM api_keys") == []


def test_a_file_that_is_no_database_is_said_so(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match=FILE):
        State(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot be opened"):
        State(tmp_path / "file" / "below")


def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    failures: list[str] = []

    def forget_and(state: State, then: str) -> None:
        with state.transaction() as connection:
            connection.execute(text("DELETE FROM notes"))
            connection.execute(text(then))
            raise ZeroDivisionError

    with State(database.folder, OLD, database=database.url, failed=failures.append) as state:
        with pytest.raises(ZeroDivisionError):
            forget_and(state, "SELECT 1")
        assert not failures
        with pytest.raises(StoreError, match="written"):
            forget_and(state, "INSERT INTO nowhere VALUES (1)")
        assert len(failures) == 1
        assert "nowhere" in failures[0]
        assert said(state, "SELECT count(*) FROM notes") == [(1,)]


def test_who_reads_sees_one_moment_and_does_not_wait(database: Database) -> None:
    count = text("SELECT count(*) FROM notes")
    with database.open(OLD) as state, database.open(OLD) as other:
        with state.transaction() as writing:
            writing.execute(text("INSERT INTO notes VALUES ('not yet')"))
            assert said(other, "SELECT count(*) FROM notes") == [(1,)]
        with other.reading() as reading:
            assert reading.execute(count).scalar() == 2
            with state.transaction() as writing:
                writing.execute(text("DELETE FROM notes"))
            assert reading.execute(count).scalar() == 2


def test_what_was_committed_outlives_a_kill(tmp_path: Path) -> None:
    words = (
        "import os, signal, sys; from pathlib import Path; from sqlalchemy import text;"
        "from relay_server.state import State; state = State(Path(sys.argv[1]), [sys.argv[2]]);"
        "t = state.transaction(); c = t.__enter__();"
        "c.execute(text(\"INSERT INTO notes VALUES ('whole')\")); t.__exit__(None, None, None);"
        "t = state.transaction(); c = t.__enter__();"
        "c.execute(text(\"INSERT INTO notes VALUES ('half')\"));"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", words, str(tmp_path), OLD[0]])
    assert done.returncode == -9
    with State(tmp_path, OLD) as state:
        assert said(state) == [("kept",), ("whole",)]
    with sqlite3.connect(tmp_path / FILE) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_server_that_was_restarted_is_found_again(postgres: Postgres, tmp_path: Path) -> None:
    with State(tmp_path, OLD, database=postgres.new()) as state:
        assert said(state) == [("kept",)]
        postgres.stop()
        try:
            with pytest.raises(StoreError, match="cannot be read"):
                said(state)
        finally:
            postgres.start()
        assert said(state) == [("kept",)]


def test_a_password_is_never_told(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.new()
    name = url.rpartition("/")[2]
    with State(tmp_path, database=url) as state:
        assert PASSWORD not in state.place
        assert "***" in state.place
    wrong = postgres.url("relay1", password="another-secret")
    settings = RelaySettings(database=wrong)
    # The server hangs up once it has said why, which may be noticed first.
    with pytest.raises(StoreError, match=r"password authentication failed|network error") as caught:
        State(tmp_path, database=wrong)
    everything = f"{settings!r} {settings} {caught.value} {caught.value.data}"
    assert "another-secret" not in everything
    assert name
    for bad in ("mysql://a:another-secret@host/name", "postgresql://a:another-secret@host"):
        with pytest.raises(ConfigError, match="must be named as") as refused:
            RelaySettings(database=bad)
        assert "another-secret" not in str(refused.value)


def test_tls_is_what_the_url_says(postgres: Postgres, tmp_path: Path) -> None:
    name = postgres.new().partition("?")[0].rpartition("/")[2]
    url = postgres.url(name, host="localhost")
    cert = postgres.folder / "cert.pem"
    query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    for words, encrypted in (
        ("", True),
        ("?sslmode=disable", False),
        ("?sslmode=require", True),
        (f"?sslmode=verify-full&sslrootcert={cert}&application_name=relay", True),
    ):
        with State(tmp_path, database=url + words) as state:
            assert said(state, query) == [(encrypted,)]
    with pytest.raises(StoreError, match="certificate verify failed"):
        State(tmp_path, database=f"{url}?sslmode=verify-full")
    for words, match in (
        ("?sslmode=perhaps", "not known"),
        ("?sslmode=verify-ca&sslrootcert=/nowhere", "cannot be read"),
        ("?colour=red", "'colour' is nothing"),
    ):
        with pytest.raises(ConfigError, match=match):
            State(tmp_path, database=url + words)


def test_the_extra_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pg8000", None)
    with pytest.raises(ConfigError, match=r"kwaainet\[postgres\]"):
        State(tmp_path, database="postgresql://somebody@localhost/relay")


def test_settings_without_a_database_are_sqlites() -> None:
    assert dataclasses.asdict(RelaySettings())["database"] == ""
