"""A relay with its API on, native nodes that serve the default model, and ways to ask."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from pyodide_node.config import NodeConfig, ResourceLimits, models_url, relay_url
from pyodide_node.core import KwaaiNetCore
from pyodide_node.hosts.native import native_host
from relay_server import Relay, RelaySettings
from relay_server.api.keys import ApiKeys, Usage
from relay_server.settings import default_models
from relay_server.state import State

__all__ = ["MODEL", "PROMPT", "Node", "Place", "Raw", "eventually", "place"]

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


class Node:
    """A native node of the mesh."""

    def __init__(self, core: KwaaiNetCore, key: bytes) -> None:
        self.core = core
        self.key = key
        self._idle = core.budget.memory_used

    @property
    def busy(self) -> bool:
        """Whether it keeps room for anybody's answer."""
        return self.core.budget.memory_used > self._idle

    async def close(self) -> None:
        await self.core.close()


@dataclass
class Place:
    relay: Relay
    folder: Path
    stack: AsyncExitStack
    key: str
    nodes: list[Node] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{self.relay.url}/v1"

    def client(self, key: str | None = None) -> AsyncOpenAI:
        # The world's certificates take a quarter of a second to read, and only one counts here.
        trusted = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE", "/dev/null"))
        return AsyncOpenAI(
            base_url=self.url,
            api_key=key or self.key,
            max_retries=0,
            http_client=DefaultAsyncHttpxClient(verify=trusted),
        )

    def config(self, *, model: str = MODEL, **more: Any) -> NodeConfig:
        return NodeConfig(
            relays=(relay_url(self.relay.url),),
            sources=(models_url(self.relay.url),),
            limits=ResourceLimits(cpu=100, memory=2000),
            model=model,
            **more,
        )

    async def node(self, **config: Any) -> Node:
        """One more native node; it serves what the swarm needs."""
        host = await native_host(self.folder / f"node{len(list(self.folder.iterdir()))}")
        self.stack.callback(host.close)
        core = KwaaiNetCore(host, self.config(**config))
        self.stack.push_async_callback(core.close)
        await core.initialize()
        self.nodes.append(Node(core, host.keys.public_key))
        return self.nodes[-1]

    async def serving(self) -> None:
        """Return when every model here is served whole."""

        async def served() -> bool:
            models = (await client.models.list()).data
            return all(model.kwaainet["served"] for model in models)  # type: ignore[attr-defined]

        async with self.client() as client:
            await eventually(served)

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
