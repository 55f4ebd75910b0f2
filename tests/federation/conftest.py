"""Relays as processes of their own, each with libp2p, and native nodes in the test's loop."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pyodide_node.config import NodeConfig, ResourceLimits, models_url, relay_url
from pyodide_node.core import KwaaiNetCore
from pyodide_node.hosts.native import native_host
from pyodide_node.inference.asker import Answer
from pyodide_node.inference.generation import InferenceRequest
from tests.relay_server.http import get

MODEL = "kwaai-docs"
PROMPT = "If the file does not exist,"
PATIENCE = 60.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if importlib.util.find_spec("libp2p") is not None:
        return
    for item in items:
        if "tests/federation" in str(item.path):
            item.add_marker(pytest.mark.skip("libp2p is not installed: build/setup.sh federation"))


async def eventually(condition: Callable[[], Awaitable[bool]], timeout: float = 30.0) -> None:
    """Wait for a state of another process, which can only be looked at."""
    async with asyncio.timeout(timeout):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.1)


@dataclass
class RelayProcess:
    process: asyncio.subprocess.Process
    url: str
    bootstrap: str

    @property
    def id(self) -> str:
        return self.bootstrap.rpartition("/")[2]

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    async def metrics(self) -> dict[str, float]:
        lines = (await get(self.url, "/metrics")).body.decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name.removeprefix("kwaainet_relay_"): float(value) for name, value in pairs}

    async def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((await get(self.url, "/status.json")).body)
        return found

    async def knows(self, relays: int, records: int = 0) -> bool:
        told = await self.metrics()
        return (told["relays"], told["records"]) == (relays, records)


@dataclass
class World:
    folder: Path
    stack: AsyncExitStack
    relays: dict[str, RelayProcess] = field(default_factory=dict)

    async def relay(self, name: str, *arguments: str, meet: str = "") -> RelayProcess:
        """A relay; `meet` names the one that it is told of."""
        if meet:
            arguments += ("--bootstrap", self.relays[meet].bootstrap)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "relay_server", "relay", "--port", "0", "--no-stun"),
            *("--state", str(self.folder / name), "--federation", "/ip4/127.0.0.1/tcp/0"),
            *arguments,
            stdout=asyncio.subprocess.PIPE,
        )
        self.stack.push_async_callback(_ended, process)
        greeting = ""
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while "metrics" not in greeting:
                line = (await process.stdout.readline()).decode()
                assert line, f"the relay did not start: {greeting}"
                greeting += line
        url = re.search(r"relay on (\S+)", greeting)
        bootstrap = re.search(r"--bootstrap (\S+)", greeting)
        assert url
        assert bootstrap
        self.relays[name] = RelayProcess(process, url[1], bootstrap[1])
        return self.relays[name]

    async def pair(self) -> tuple[RelayProcess, RelayProcess]:
        """Two relays that know each other."""
        one = await self.relay("one")
        two = await self.relay("two", meet="one")
        await eventually(lambda: one.knows(1))
        await eventually(lambda: two.knows(1))
        return one, two

    async def node(self, name: str, relay: RelayProcess, **config: Any) -> KwaaiNetCore:
        """A native node, on that relay, that serves what the swarm needs."""
        host = await native_host(self.folder / f"node-{name}")
        self.stack.callback(host.close)
        limits = ResourceLimits(cpu=100, memory=2000)
        core = KwaaiNetCore(
            host,
            NodeConfig(
                **{
                    "relays": (relay_url(relay.url),),
                    "sources": (models_url(relay.url),),
                    "limits": limits,
                    "model": MODEL,
                }
                | config
            ),
        )
        self.stack.push_async_callback(core.close)
        await core.initialize()
        return core


async def _ended(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()


async def ask(
    core: KwaaiNetCore, tokens: int, told: Callable[[int], Awaitable[None]] | None = None
) -> Answer:
    """The greedy answer to PROMPT; `told` is awaited with how many tokens have come."""
    answers: list[Answer] = []
    request = InferenceRequest(prompt=PROMPT, max_tokens=tokens)
    seen = 0
    async for chunk in core.run_inference(request, answers.append):
        seen += len(chunk.ids)
        if told is not None:
            await told(seen)
    return answers[-1]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(tmp_path, stack)
