"""Events to clients that read, stall or leave; a client here is two ASGI callables."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, MutableMapping
from contextlib import AsyncExitStack
from typing import Any

import pytest

from relay_server.api.streaming import EventStream, while_connected

Message = MutableMapping[str, Any]


class Client:
    def __init__(self, *, reads: bool = True) -> None:
        self.got: list[Message] = []
        self.left = asyncio.Event()
        self._reads = reads

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.got.append(message)
        if not self._reads and message["type"] == "http.response.body":
            await asyncio.Event().wait()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.got)

    @property
    def whole(self) -> bool:
        return not self.got[-1].get("more_body", True)


class Source:
    """Events, and whether they and what goes with them were closed."""

    def __init__(self, *events: bytes, endless: bool = False) -> None:
        self._events = events
        self._endless = endless
        self.waiting = asyncio.Event()
        self.closed: list[str] = []
        self.stack = AsyncExitStack()
        self.stack.callback(self.closed.append, "stack")

    async def __call__(self) -> AsyncGenerator[bytes, None]:
        try:
            for event in self._events:
                yield event
            if self._endless:
                self.waiting.set()
                await asyncio.Event().wait()
        finally:
            self.closed.append("events")

    async def to(self, client: Client) -> None:
        response = EventStream(self(), self.stack, {"X-Label": "honest"})
        await response({"type": "http"}, client.receive, client.send)


async def test_all_events_arrive_in_order() -> None:
    client, source = Client(), Source(b"1", b"2", b"3")
    await source.to(client)
    assert client.body == b"123"
    assert client.whole
    assert source.closed == ["events", "stack"]
    headers = dict(client.got[0]["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert headers[b"x-label"] == b"honest"
    assert b"content-length" not in headers


async def test_a_client_that_leaves_closes_the_source() -> None:
    client, source = Client(), Source(b"1", endless=True)
    sending = asyncio.create_task(source.to(client))
    await source.waiting.wait()
    client.left.set()
    await sending
    assert source.closed == ["events", "stack"]
    assert not client.whole


async def test_a_client_that_left_before_it_began_closes_the_source_too() -> None:
    client, source = Client(), Source(b"1")
    client.left.set()
    await source.to(client)
    assert source.closed[-1] == "stack"


async def test_a_client_that_reads_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay_server.api.streaming.STALL", 0.0)
    client, source = Client(reads=False), Source(b"1", b"2")
    await source.to(client)
    assert client.body == b"1"
    assert source.closed == ["events", "stack"]


async def test_a_source_that_fails_says_so_to_the_server() -> None:
    class Broken(Source):
        async def __call__(self) -> AsyncGenerator[bytes, None]:
            yield b"1"
            raise ZeroDivisionError

    source = Broken()
    with pytest.raises(ZeroDivisionError):
        await source.to(Client())
    assert source.closed == ["stack"]


async def test_work_ends_or_is_cancelled() -> None:
    client = Client()

    async def number() -> int:
        return 7

    async def fails() -> int:
        raise ZeroDivisionError

    assert await while_connected(client.receive, number()) == 7
    with pytest.raises(ZeroDivisionError):
        await while_connected(client.receive, fails())
    client.left.set()
    never = asyncio.Event()
    assert await while_connected(client.receive, never.wait()) is None
