"""A bounded search on every surface finds nothing, and finds a mistake that was made on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from subprocess import run

import pytest

from relay_server import Relay, RelaySettings
from tests.fuzz.__main__ import NAMES
from tests.fuzz.targets import HEADERS, METHODS, PATHS, TARGETS, seeds
from tests.relay_server.client import Client
from tests.relay_server.http import get

pytestmark = pytest.mark.timeout(300)
SECONDS = 6


def fuzz(*options: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "tests.fuzz", "--seconds", str(SECONDS), *options]
    done = run(command, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_found(name: str) -> None:
    code, said = fuzz("--target", name)
    assert code == 0, said[-4000:]
    assert f"{name}: nothing found" in said


def test_a_planted_mistake_is_found() -> None:
    code, said = fuzz("--target", "hub", "--plant", "--seconds", "120")
    assert code != 0
    assert "planted" in said
    assert "hub: FOUND SOMETHING" in said


@pytest.mark.parametrize("name", NAMES)
def test_seeds_are_borne(name: str) -> None:
    for seed in seeds(name):
        TARGETS[name](seed)


async def test_a_real_relay_bears_it_too() -> None:
    chance = random.Random(1)
    settings = RelaySettings(port=0, stun=False, joins_per_address=1e6, requests_per_address=1e6)

    async def connection(relay: Relay) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        with contextlib.suppress(ConnectionError):
            for _ in range(chance.randrange(1, 5)):
                lines = [f"{chance.choice(METHODS)} {chance.choice(PATHS)} HTTP/1.1", "Host: x"]
                lines += chance.choices(HEADERS, k=chance.randrange(6))
                writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
                writer.write(chance.randbytes(chance.randrange(300)))
                await writer.drain()
        if chance.random() < 0.5:
            writer.transport.abort()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await reader.read()

    async def node(relay: Relay) -> None:
        client = Client(relay.mesh_url)
        with contextlib.suppress(Exception):
            await client.dial()
            if chance.random() < 0.8:
                await client.enter()
            for seed in chance.choices(seeds("wire"), k=20):
                at = chance.randrange(len(seed))
                await client.socket.send(seed[1:at] + chance.randbytes(2) + seed[at:])
        client.socket.transport.abort()

    async with Relay(settings) as relay, Client(relay.mesh_url) as a, Client(relay.mesh_url) as b:
        await b.hears(a)
        for _ in range(10):
            await asyncio.wait_for(
                asyncio.gather(*(connection(relay) for _ in range(10))), timeout=60
            )
            await asyncio.gather(*(node(relay) for _ in range(10)))
            await a.forward(b.key, b"still here")
            assert await b.forwarded() == (a.key, b"still here")
        assert (await get(relay.url, "/healthz")).status == 200
        relay.hub.sweep()
        assert len(relay.hub) == 2
