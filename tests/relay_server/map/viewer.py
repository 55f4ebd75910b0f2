"""Somebody who follows the map's feed over a real WebSocket."""

from __future__ import annotations

import asyncio
import json
from ssl import SSLContext
from types import TracebackType
from typing import Any

from websockets.asyncio.client import connect

from tests.relay_server.client import PATIENCE

__all__ = ["Follower"]


class Follower:
    """`async with Follower(relay.url) as map`: `map.shown` is the map as a page would have it."""

    def __init__(self, url: str, origin: str | None = None, ssl: SSLContext | None = None) -> None:
        self._url = url.replace("http", "ws", 1) + "/map/feed"
        self._origin = origin
        self._ssl = ssl
        self.shown: dict[str, Any] = {}
        self.received = 0

    async def __aenter__(self) -> Follower:
        self.socket = await connect(
            self._url, origin=self._origin, compression=None, proxy=None, ssl=self._ssl
        )  # type: ignore[arg-type]
        await self.next()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.socket.close()

    async def next(self) -> dict[str, Any]:
        """Take one message in."""
        async with asyncio.timeout(PATIENCE):
            message: dict[str, Any] = json.loads(await self.socket.recv())
        self.received += 1
        if message["type"] == "map":
            self.shown = message
        elif message["type"] == "change":
            known = {model["id"]: model for model in self.shown["models"]}
            known |= {model["id"]: model for model in message.pop("models", [])}
            order = message.pop("order", [model["id"] for model in self.shown["models"]])
            self.shown |= message | {"type": "map", "models": [known[id] for id in order]}
        return message

    async def until_nodes(self, count: int) -> None:
        while self.shown["totals"]["nodes"] != count:
            await self.next()
