"""A relay on a free port, in the test's own loop."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from relay_server import Relay, RelaySettings


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    async with Relay(RelaySettings(port=0, stun=False)) as relay:
        yield relay
