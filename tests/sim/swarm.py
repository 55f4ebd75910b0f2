"""A swarm in one process: simulated hosts, real nodes, and the relay's real hub between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pyodide_node.config import NodeConfig, ResourceLimits
from pyodide_node.core import KwaaiNetCore
from pyodide_node.hosts.base import Buffer
from pyodide_node.hosts.simulated import (
    SimulatedHost,
    SimulatedModel,
    SimulatedNetwork,
    simulated_host,
    simulated_model,
)
from pyodide_node.hosts.simulated.clock import SimulatedClock
from pyodide_node.hosts.simulated.relay import RelayConnection
from pyodide_node.inference.asker import Answer
from pyodide_node.inference.generation import InferenceRequest
from pyodide_node.model.manifest import Chat, GenerationDefaults
from relay_server.hub import Hub
from relay_server.settings import RelaySettings

RELAY = "wss://relay.test/mesh"
SOURCE = "https://relay.test/models/"
PROMPT = "Once upon a time"


class HubSocket:
    """A simulated connection, as the hub wants its sockets."""

    def __init__(self, connection: RelayConnection) -> None:
        self._connection = connection
        self._tasks: set[asyncio.Task[None]] = set()
        self.written = 0

    @property
    def buffered(self) -> int:
        return self._connection.buffered

    def send(self, *parts: Buffer) -> None:
        data = b"".join(parts)
        self.written += len(data)
        self._connection.send(data)

    def welcome(self) -> None:
        pass

    def hold(self, seconds: float) -> None:
        pass

    def close(self, code: int, reason: str = "") -> None:
        task = asyncio.ensure_future(self._connection.close())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def abort(self) -> None:
        self.close(1011)


@dataclass
class Swarm:
    network: SimulatedNetwork
    model: SimulatedModel
    hub: Hub
    hosts: dict[str, SimulatedHost] = field(default_factory=dict)
    nodes: dict[str, KwaaiNetCore] = field(default_factory=dict)

    def start_relay(self) -> None:
        async def handle(connection: RelayConnection) -> None:
            node = self.hub.connected(HubSocket(connection), "relay.test", connection.host)
            try:
                async for message in connection:
                    self.hub.received(node, message)
            finally:
                self.hub.disconnected(node)

        self.network.relay(RELAY, handle)

    def host(self, name: str) -> SimulatedHost:
        """The machine of that name: the same one for every node that runs on it."""
        if name not in self.hosts:
            self.hosts[name] = simulated_host(self.network, name)
        return self.hosts[name]

    async def node(self, name: str, **config: Any) -> KwaaiNetCore:
        """A node that has joined and serves."""
        limits = ResourceLimits(cpu=100, memory=1000, storage=100)
        host = self.host(name)
        core = KwaaiNetCore(
            host,
            NodeConfig(**{"relays": (RELAY,), "sources": (SOURCE,), "limits": limits} | config),
        )
        self.nodes[name] = core
        await core.initialize()
        return core

    def kill(self, name: str, *, silent: bool = False) -> None:
        """The node's tab closes, or (silent) its machine loses power."""
        self.network.kill(name, silent=silent)

    def expected(self, count: int) -> list[int]:
        return self.model.greedy([256, *PROMPT.encode()], count)

    async def covered(self) -> None:
        """Until every block is served by a node of this swarm that the relay knows."""
        while True:
            own = {host.keys.public_key for host in self.hosts.values()}
            entries = [entry for entry in self.hub.directory if entry.public_key in own]
            blocks = {b for e in entries for b in range(e.announcement.first, e.announcement.last)}
            if len(blocks) == self.model.manifest.blocks:
                return
            await asyncio.sleep(0.1)


@asynccontextmanager
async def swarm(
    blocks: int = 8,
    *,
    delay: float = 0.010,
    seed: int = 0,
    hidden_size: int = 32,
    chat: Chat | None = None,
    generation: GenerationDefaults | None = None,
) -> AsyncIterator[Swarm]:
    network = SimulatedNetwork(seed=seed, delay=delay)
    model = simulated_model(
        blocks=blocks, seed=seed, hidden_size=hidden_size, chat=chat, generation=generation
    )
    hub = Hub(RelaySettings(), SimulatedClock(0.0))
    built = Swarm(network, model, hub)
    name = model.manifest.name
    index = {"models": [{"name": name, "id": model.manifest.model_id}]}
    network.web[SOURCE + "index.json"] = msgspec.json.encode(index)
    model.publish(network.web, SOURCE + name)
    built.start_relay()
    try:
        yield built
    finally:
        for core in built.nodes.values():
            await core.close()


async def ask(
    core: KwaaiNetCore,
    count: int = 12,
    *,
    on_token: Callable[[int], None] = lambda n: None,
    **request: Any,
) -> Answer:
    """The greedy answer to PROMPT."""
    answers: list[Answer] = []
    seen = 0
    stream = core.run_inference(
        InferenceRequest(**{"prompt": PROMPT, "max_tokens": count} | request), answers.append
    )
    async for chunk in stream:
        seen += len(chunk.ids)
        on_token(seen)
    return answers[-1]
