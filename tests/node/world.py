"""A node behind its control, as a page or a command line drives it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pyodide_node.config import NodeConfig, ResourceLimits
from pyodide_node.control import Control
from pyodide_node.model.manifest import Chat, GenerationDefaults
from tests.sim.swarm import SOURCE, Swarm, swarm

__all__ = ["Page", "page"]


@dataclass
class Page:
    """What was posted to the page, and a way to call."""

    net: Swarm
    posted: list[dict[str, Any]] = field(default_factory=list)
    calls: int = 0
    control: Control = field(init=False)

    def post(self, text: str) -> None:
        self.posted.append(json.loads(text))

    def notices(self, event: str) -> list[Any]:
        return [
            one["value"] for one in self.posted if one["type"] == "notice" and one["event"] == event
        ]

    def replies(self, number: int) -> list[dict[str, Any]]:
        return [one for one in self.posted if one["type"] == "reply" and one["id"] == number]

    def start(self, method: str, params: Any = None, *, number: int | None = None) -> int:
        """Deliver a call; its id."""
        self.calls += 1
        call = self.calls if number is None else number
        self.control.deliver(json.dumps({"id": call, "method": method, "params": params}))
        return call

    async def end(self, number: int, seconds: float = 60.0) -> dict[str, Any]:
        """The reply that ends a call."""
        async with asyncio.timeout(seconds):
            while True:
                for reply in self.replies(number):
                    if reply["event"] != "chunk":
                        return reply
                await asyncio.sleep(0.01)

    async def call(self, method: str, params: Any = None) -> Any:
        """The value of a call that succeeds."""
        reply = await self.end(self.start(method, params))
        assert reply["event"] == "done", reply
        return reply["value"]

    async def refusal(self, method: str, params: Any = None) -> dict[str, Any]:
        reply = await self.end(self.start(method, params))
        assert reply["event"] == "error", reply
        error: dict[str, Any] = reply["error"]
        return error


@asynccontextmanager
async def page(
    *,
    ready: bool = True,
    chat: Chat | None = None,
    generation: GenerationDefaults | None = None,
    **config: Any,
) -> AsyncIterator[Page]:
    """A node alone, run until the end of the block."""
    limits = ResourceLimits(cpu=100, memory=1000, storage=100)
    async with swarm(chat=chat, generation=generation) as net:
        made = Page(net)
        fields = {"sources": (SOURCE,), "limits": limits} | config
        made.control = Control(net.host("ada"), NodeConfig(**fields), made.post)
        running = asyncio.ensure_future(made.control.run())
        if ready:
            await made.end(made.start("generate", {"prompt": "x", "max_tokens": 1}))
        try:
            yield made
        finally:
            made.control.stop()
            await running
