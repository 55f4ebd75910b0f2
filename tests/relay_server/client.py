"""A node in few lines: enough of one to talk to a relay over a real WebSocket."""

from __future__ import annotations

import asyncio
import os
import time
from ssl import SSLContext
from types import TracebackType
from typing import TypeVar
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect

from pyodide_node.hosts.base import Buffer
from pyodide_node.hosts.crypto import SoftwareKeys
from pyodide_node.mesh.announcement import Announcement, announce
from pyodide_node.wire.frames import Frame, encode, parse
from pyodide_node.wire.messages import (
    Challenge,
    Forward,
    Forwarded,
    Hello,
    Message,
    Publish,
    Records,
    Refused,
    Subscribe,
    Undelivered,
    Welcome,
    decode,
    hello_bytes,
    to_frame,
)

__all__ = ["MODEL", "Client", "announcement"]

MODEL = bytes(range(32))
PATIENCE = 10.0
_M = TypeVar("_M", bound=Message)


def announcement(model: bytes = MODEL, first: int = 0, last: int = 3) -> Announcement:
    return Announcement(model, first, last, 100.0, "onnxruntime", "native", 4096)


class Client:
    """`async with Client(url) as node`: entered when the block begins."""

    def __init__(
        self,
        url: str,
        keys: SoftwareKeys | None = None,
        *,
        headers: dict[str, str] | None = None,
        ssl: SSLContext | None = None,
    ) -> None:
        self.url = url
        self.headers = headers
        self.ssl = ssl
        self.keys = keys or SoftwareKeys(os.urandom(32), os.urandom)
        self.sequence = 0
        self.expected = 0
        self.ice_servers: list[str] = []
        self.socket: ClientConnection

    @property
    def key(self) -> bytes:
        return self.keys.public_key

    async def __aenter__(self) -> Client:
        await self.dial()
        await self.enter()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.socket.close()

    async def dial(self) -> None:
        self.socket = await connect(
            self.url,
            additional_headers=self.headers,
            compression=None,
            max_size=None,
            ping_interval=None,
            proxy=None,
            ssl=self.ssl,
        )

    async def enter(self) -> None:
        challenge = await self.expect(Challenge)
        await self.send(await self.hello(challenge.nonce))
        self.ice_servers = (await self.expect(Welcome)).ice_servers

    async def hello(self, nonce: bytes, audience: str | None = None) -> Hello:
        audience = urlsplit(self.url).netloc if audience is None else audience
        return Hello(self.key, audience, await self.keys.sign(hello_bytes(nonce, audience)))

    async def send(self, message: Message, payload: Buffer = b"") -> None:
        await self.socket.send(encode(to_frame(message, payload, sequence=self.sequence)))
        self.sequence += 1

    async def receive(self) -> tuple[Message, Frame]:
        async with asyncio.timeout(PATIENCE):
            data = await self.socket.recv()
        assert isinstance(data, bytes)
        frame = parse(data)
        assert frame.sequence == self.expected
        self.expected += 1
        return decode(frame), frame

    async def expect(self, kind: type[_M]) -> _M:
        message, _ = await self.receive()
        assert isinstance(message, kind), message
        return message

    async def refused(self) -> tuple[str, int | None]:
        """The code of the refusal and of the closing that follows."""
        refused = await self.expect(Refused)
        async with asyncio.timeout(PATIENCE):
            await self.socket.wait_closed()
        return refused.code, self.socket.close_code

    async def publish(self, said: Announcement | None = None, now: float | None = None) -> bytes:
        record = await announce(self.keys, said or announcement(), now or time.time())
        await self.send(Publish(record))
        return record

    async def subscribe(self, model: bytes = MODEL) -> None:
        await self.send(Subscribe(model))

    async def records(self, count: int) -> list[bytes]:
        """The next records, however they are batched."""
        found: list[bytes] = []
        while len(found) < count:
            found += (await self.expect(Records)).records
        return found

    async def forward(self, to: bytes, payload: Buffer) -> None:
        await self.send(Forward(to), payload)

    async def hears(self, peer: Client) -> None:
        """Make packets of this peer welcome, by writing to it before it wants any."""
        await self.forward(peer.key, b"")
        assert await self.expect(Undelivered) == Undelivered(peer.key, "unwanted")

    async def forwarded(self) -> tuple[bytes, bytes]:
        """Who sent the next packet, and the packet."""
        message, frame = await self.receive()
        assert isinstance(message, Forwarded), message
        return message.sender, bytes(frame.payload)
