"""The relay tells how much it does, and nothing about anybody."""

from __future__ import annotations

import re

from relay_server import Relay, RelaySettings
from tests.relay_server.client import Client
from tests.relay_server.http import get

LINE = re.compile(r'(# (HELP|TYPE) \w+ .+|(\w+)(\{reason="\w+"\})? (\d+))')


async def test_healthy(relay: Relay) -> None:
    answer = await get(relay.url, "/healthz")
    assert (answer.status, answer.body) == (200, b"ok\n")


async def test_ready_until_it_is_full() -> None:
    async with Relay(RelaySettings(port=0, stun=False, max_connections=1)) as relay:
        answer = await get(relay.url, "/readyz")
        assert (answer.status, answer.body) == (200, b"ok\n")
        async with Client(relay.mesh_url):
            answer = await get(relay.url, "/readyz")
            assert (answer.status, answer.body) == (503, b"Full\n")
