"""A node on a raw socket: so light that it does not take the core that it shares with the relay."""

from __future__ import annotations

import asyncio
import os
import struct

from pyodide_node.hosts.crypto import SoftwareKeys
from pyodide_node.wire.frames import encode, parse
from pyodide_node.wire.messages import Challenge, Forward, Hello, Message, decode, to_frame
from pyodide_node.wire.messages import hello_bytes as signed_by_hello

__all__ = ["RawClient", "source", "websocket_message"]

_KEY = "AAAAAAAAAAAAAAAAAAAAAA=="
_PER_SOURCE = 400
"""Clients at one address: below what a relay takes from one."""


def source(number: int) -> str:
    """Where client `number` comes from: an address of the loopback, as many as are needed."""
    return f"127.0.1.{1 + number // _PER_SOURCE}"


class RawClient:
    """One connection to a relay, or to the echo server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.keys = SoftwareKeys(os.urandom(32), os.urandom)
        self.sequence = 0

    @classmethod
    async def dial(cls, port: int, address: str = "127.0.0.1") -> RawClient:
        """Upgraded, and not entered. Raises ConnectionError when it is turned away."""
        self = cls(
            *await asyncio.open_connection(
                "127.0.0.1", port, limit=1 << 20, local_addr=(address, 0)
            )
        )
        self.writer.write(
            f"GET /mesh HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {_KEY}\r\n\r\n"
            "".encode()
        )
        try:
            answer = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            self.writer.close()
            raise ConnectionError("cut") from error
        if b" 101 " not in answer:
            self.writer.close()
            raise ConnectionError(answer.split(b"\r\n")[0].decode())
        return self

    @classmethod
    async def enter(cls, port: int, address: str = "127.0.0.1") -> RawClient:
        """A node that has proved its key. Raises ConnectionError."""
        self = await cls.dial(port, address)
        challenge = decode(parse(await self.message()))
        assert isinstance(challenge, Challenge)
        name = f"127.0.0.1:{port}"
        signature = await self.keys.sign(signed_by_hello(challenge.nonce, name))
        self.send(Hello(self.keys.public_key, name, signature))
        await self.message()
        return self

    def send(self, message: Message, payload: bytes = b"") -> None:
        self.writer.write(self._next(message, payload))

    def hears(self, peer: RawClient) -> None:
        """Make packets of this peer welcome; its answer, that it wants none, stays unread."""
        self.send(Forward(peer.keys.public_key))

    async def message(self) -> bytes:
        size = (await self.reader.readexactly(2))[1]
        if size == 126:
            (size,) = struct.unpack(">H", await self.reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", await self.reader.readexactly(8))
        return await self.reader.readexactly(size)

    def packets(self, to: bytes, payload: bytes, count: int, together: int) -> list[bytes]:
        """`count` packets as bytes of the socket, `together` of them in a write."""
        return [
            b"".join(self._next(Forward(to), payload) for _ in range(together))
            for _ in range(0, count, together)
        ]

    def _next(self, message: Message, payload: bytes) -> bytes:
        frame = encode(to_frame(message, payload, sequence=self.sequence))
        self.sequence += 1
        return websocket_message(frame)


def websocket_message(data: bytes) -> bytes:
    """A client's binary message, masked with zeros: honest work for the relay, none for us."""
    size = len(data)
    if size < 126:
        head = struct.pack(">BB", 0x82, 0x80 | size)
    elif size < 65536:
        head = struct.pack(">BBH", 0x82, 0x80 | 126, size)
    else:
        head = struct.pack(">BBQ", 0x82, 0x80 | 127, size)
    return head + bytes(4) + data
