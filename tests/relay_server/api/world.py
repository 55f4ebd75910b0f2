"""A relay with its API on, native nodes that serve the default model, and ways to ask."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

from pyodide_node.config import NodeConfig, ResourceLimits, models_url, relay_url
from pyodide_node.core import KwaaiNetCore
from pyodide_node.hosts.native import native_host
from relay_server import Relay, RelaySettings
from relay_server.api.keys import ApiKeys, Usage
from relay_server.settings import default_models
from relay_server.state import State

__all__ = ["MODEL", "PROMPT", "Place", "Raw", "eventually", "place"]

MODEL = "kwaai-docs"
PROMPT = "If the file does not exist,"


@dataclass
class Raw:
    """An HTTP answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        error = json.loads(self.body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        return dict(error)


@dataclass
class Place:
    relay: Relay
    folder: Path
    stack: AsyncExitStack
    key: str
    nodes: list[KwaaiNetCore] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{self.relay.url}/v1"

    def client(self, key: str | None = None) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=self.url, api_key=key or self.key, max_retries=0)

    async def node(self, max_blocks: int | None = None) -> KwaaiNetCore:
        """A native node that serves what the swarm needs."""
        host = await native_host(self.folder / f"node{len(self.nodes)}")
        self.stack.callback(host.close)
        config = NodeConfig(
            relays=(relay_url(self.relay.url),),
            sources=(models_url(self.relay.url),),
            limits=ResourceLimits(cpu=100, memory=2000),
            model=MODEL,
            max_blocks=max_blocks,
        )
        core = KwaaiNetCore(host, config)
        self.stack.push_async_callback(core.close)
        await core.initialize()
        self.nodes.append(core)
        return core

    async def serving(self) -> None:
        """Return when a model is served whole."""
        client = self.client()

        async def served() -> bool:
            models = (await client.models.list()).data
            return any(model.kwaainet["served"] for model in models)  # type: ignore[attr-defined]

        await eventually(served)
        await client.close()

    def usage(self, key: str | None = None) -> Usage:
        wanted = (key or self.key).split("-")[1]
        with State(self.folder / "state") as state:
            return next(used for one, used in ApiKeys(state).list() if one.id == wanted)

    def add_key(self, name: str, **quotas: int) -> str:
        return add_key(self.folder, name, **quotas)

    async def ask(
        self,
        path: str = "/completions",
        body: bytes | dict[str, Any] | None = None,
        *,
        method: str = "POST",
        key: str | None = None,
        **headers: str,
    ) -> Raw:
        """By hand, so that it may be anything; `headers` with underscores for dashes."""
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        usual = {
            "Host": "relay",
            "Connection": "close",
            "Content-Length": str(len(body or b"")),
            "Authorization": f"Bearer {key or self.key}",
        }
        given = usual | given
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.relay.port)
        try:
            writer.write(f"{method} /v1{path} HTTP/1.1\r\n{lines}\r\n".encode() + (body or b""))
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            found = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            return Raw(int(head[0].split()[1]), found, await reader.read())
        finally:
            writer.close()


def add_key(folder: Path, name: str, **quotas: int) -> str:
    with State(folder / "state") as state:
        return ApiKeys(state).add(name, **quotas)


@asynccontextmanager
async def place(folder: Path, **settings: Any) -> AsyncIterator[Place]:
    """The same `folder` again is the same relay started again."""
    chosen = {"models": default_models(), "stun": False, "port": 0} | settings
    relay = Relay(RelaySettings(state=folder / "state", api=True, **chosen))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(relay)
        yield Place(relay, folder, stack, add_key(folder, f"tests {relay.port}"))


async def eventually(condition: Callable[[], Awaitable[bool]], timeout: float = 30.0) -> None:
    """Wait for a state of somebody else, which can only be looked at."""
    async with asyncio.timeout(timeout):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
