"""A relay on a free port, in the test's own loop; and the databases that its state may lie in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from relay_server import Relay, RelaySettings
from tests.relay_server.databases import Database, Postgres, postgres_server


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    async with Relay(RelaySettings(port=0, stun=False)) as relay:
        yield relay


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """An empty one of each kind."""
    if request.param == "sqlite":
        return Database(tmp_path, "")
    server: Postgres = request.getfixturevalue("postgres")
    return Database(tmp_path, server.new())
