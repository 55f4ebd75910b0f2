"""One relay with one native node that serves the whole default model, for a module's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.relay_server.api.world import Place, place


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    async with place(tmp_path_factory.mktemp("relay")) as started:
        await started.node()
        await started.serving()
        yield started
