"""Databases for a relay's state: a file of SQLite, and a PostgreSQL server of the tests' own."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from relay_server.state import MIGRATIONS, State
from tests.relay_server.test_relay import self_signed

__all__ = ["OWNER", "PASSWORD", "Database", "Postgres", "postgres_server"]

OWNER = "kwaainet"
PASSWORD = "not-for-anybody's-eyes"
_PATIENCE = 60


@dataclass(frozen=True)
class Database:
    """Where one test keeps its state; `url` is "" for SQLite."""

    folder: Path
    url: str

    def open(self, migrations: Sequence[str] = MIGRATIONS) -> State:
        return State(self.folder, migrations, database=self.url)


class Postgres:
    """One cluster in a temporary folder, reached by its socket and, with TLS, on loopback."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self.programs = programs
        self.port = free_port()
        self._numbers = count(1)
        # PostgreSQL does not run as root.
        self._user = pwd.getpwnam("nobody") if os.getuid() == 0 else None
        if self._user is not None:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)

    def make(self) -> None:
        secret = self.folder / "secret"
        secret.write_text(PASSWORD)
        cert, key = self_signed(self.folder)
        for path in (secret, cert, key):
            path.chmod(0o600)
            if self._user is not None:
                os.chown(path, self._user.pw_uid, self._user.pw_gid)
        self.run(
            "initdb",
            *("-D", "data", "-U", OWNER, "-A", "scram-sha-256", "--pwfile", "secret"),
            *("-E", "UTF8", "--locale=C", "--no-sync"),
        )
        with (self.folder / "data/postgresql.conf").open("a") as conf:
            conf.write(
                f"listen_addresses = '127.0.0.1'\nport = {self.port}\nfsync = off\n"
                f"unix_socket_directories = '{self.folder}'\n"
                f"ssl = on\nssl_cert_file = '{cert}'\nssl_key_file = '{key}'\n"
            )

    def start(self) -> None:
        self.run("pg_ctl", *("-D", "data", "-l", "log", "-w", "-t", str(_PATIENCE), "start"))

    def stop(self) -> None:
        self.run("pg_ctl", *("-D", "data", "-m", "immediate", "-w", "stop"))

    def run(self, program: str, *arguments: str) -> str:
        """What one of PostgreSQL's programs prints, run in the folder."""
        done = subprocess.run(
            [self.programs / program, *arguments],
            cwd=self.folder,
            env={"PATH": os.defpath, "PGPASSWORD": PASSWORD, "LC_ALL": "C"},
            user=self._user.pw_uid if self._user is not None else None,
            group=self._user.pw_gid if self._user is not None else None,
            extra_groups=[] if self._user is not None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=2 * _PATIENCE,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def new(self) -> str:
        """The URL of an empty database."""
        name = f"relay{next(self._numbers)}"
        self.run("createdb", *("-h", str(self.folder), "-p", str(self.port), "-U", OWNER, name))
        return self.url(name)

    def url(self, name: str, *, password: str = PASSWORD, host: str | None = None) -> str:
        port = self.port
        if host is not None:
            return f"postgresql://{OWNER}:{password}@{host}:{port}/{name}"
        return f"postgresql://{OWNER}:{password}@:{port}/{name}?host={self.folder}"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


def _programs() -> Path:
    """The newest of Debian's, which are not on PATH, or those that are."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[4])
    )
    named = shutil.which("initdb")
    if not found and named is None:
        pytest.skip("PostgreSQL is not on this machine: build/setup.sh postgres")
    return found[-1].parent if found else Path(str(named)).resolve().parent


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """It runs while the block does. Skips where there is none."""
    programs = _programs()
    # Below /tmp: the path of a socket is short, and another user must be able to come there.
    with tempfile.TemporaryDirectory(prefix="kwaainet-pg-", dir="/tmp") as folder:
        server = Postgres(Path(folder), programs)
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop()
