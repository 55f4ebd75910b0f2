"""The relay's state: made, brought up to date, and kept whole."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from pyodide_node.errors import StoreError
from relay_server.state import FILE, MIGRATIONS, State

OLD = ["CREATE TABLE notes (text TEXT NOT NULL); INSERT INTO notes VALUES ('kept');"]
NEW = [*OLD, "ALTER TABLE notes ADD COLUMN stars INTEGER NOT NULL DEFAULT 3;"]


def test_it_is_made_where_there_is_none(tmp_path: Path) -> None:
    with State(tmp_path / "new" / "relay") as state, state.transaction() as connection:
        (version,) = connection.execute("SELECT max(version) FROM migrations").fetchone()
        assert version == len(MIGRATIONS)
    assert (tmp_path / "new" / "relay").stat().st_mode & 0o077 == 0


def test_what_is_there_is_brought_up_to_date_once(tmp_path: Path) -> None:
    State(tmp_path, OLD).close()
    for _ in range(2):
        with State(tmp_path, NEW) as state, state.transaction() as connection:
            assert [*connection.execute("SELECT * FROM notes").fetchone()] == ["kept", 3]


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    State(tmp_path, OLD).close()
    with pytest.raises(StoreError, match="cannot be"):
        State(tmp_path, [*NEW, "INSERT INTO nowhere VALUES (1);"])
    with State(tmp_path, OLD) as state, state.transaction() as connection:
        assert [*connection.execute("SELECT * FROM notes").fetchone()] == ["kept"]


def test_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    State(tmp_path, NEW).close()
    with pytest.raises(StoreError, match="newer kwaainet"):
        State(tmp_path, OLD)


def test_a_file_that_is_no_database_is_said_so(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match=FILE):
        State(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot be opened"):
        State(tmp_path / "file" / "below")


def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def forget_and(state: State, then: str) -> None:
        with state.transaction() as connection:
            connection.execute("DELETE FROM notes")
            connection.execute(then)
            raise ZeroDivisionError

    with State(tmp_path, OLD) as state:
        with pytest.raises(ZeroDivisionError):
            forget_and(state, "SELECT 1")
        with pytest.raises(StoreError, match="written"):
            forget_and(state, "INSERT INTO nowhere VALUES (1)")
        with state.transaction() as connection:
            assert connection.execute("SELECT count(*) FROM notes").fetchone()[0] == 1


def test_another_process_reads_while_the_relay_has_it_open(tmp_path: Path) -> None:
    with State(tmp_path, OLD) as state, state.transaction() as connection:
        connection.execute("INSERT INTO notes VALUES ('not yet')")
        other = sqlite3.connect(tmp_path / FILE)
        assert other.execute("SELECT count(*) FROM notes").fetchone() == (1,)
        other.close()
