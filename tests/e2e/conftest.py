"""Real browsers, a real relay, real WebRTC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from relay_server.demo.network import DemoNetwork, DemoOptions

Start = Callable[..., Awaitable[DemoNetwork]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/e2e" in str(item.path):
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.timeout(240))


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """`await start(tabs=2)`: a network whose tabs have all said yes and serve every block."""
    async with AsyncExitStack() as stack:

        async def start_network(*flags: str, storage: bool = True, **options: Any) -> DemoNetwork:
            options = {"tabs": 1, "native": 0} | options
            network = await stack.enter_async_context(DemoNetwork(DemoOptions(**options)))
            for _ in range(network.options.native):
                await network.add_native()
            for _ in range(network.options.tabs):
                visitor = await network.add_visitor(*flags, storage=storage)
                await visitor.agree()
            await network.covered()
            return network

        yield start_network


async def eventually(condition: Callable[[], Awaitable[bool]], timeout: float = 30.0) -> None:
    """Wait for a state of another process, which can only be looked at."""
    async with asyncio.timeout(timeout):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.1)
