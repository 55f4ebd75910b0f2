"""One attack, in a process of its own: `python -m build.load.attacker NAME PORT SECONDS`.

They come from four addresses of the loopback, do their worst, and take no notice of refusals.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import uvloop

from build.load.client import RawClient, websocket_message
from pyodide_node.mesh.announcement import Announcement, announce
from pyodide_node.wire.messages import Forward, Publish, Subscribe
from relay_server.open_files import raise_open_files

__all__ = ["ATTACKS", "MODEL"]

MODEL: Final = bytes(range(32))
_LOST = (OSError, asyncio.IncompleteReadError, AssertionError, RuntimeError)
"""What a refusal or a cut looks like to a client that takes no notice; uvloop raises RuntimeError
for a write after it."""


def _source(number: int) -> str:
    return f"127.0.2.{1 + number % 4}"


async def _again(port: int, number: int, once: Callable[[int, str], Awaitable[None]]) -> None:
    """The same from one address, for as long as the process lives."""
    while True:
        with suppress(*_LOST):
            await once(port, _source(number))
        await asyncio.sleep(0.02)


async def _open(port: int, address: str) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    return writer


async def _drip(writer: asyncio.StreamWriter, every: float) -> None:
    while not writer.is_closing():
        writer.write(b"a")
        await writer.drain()
        await asyncio.sleep(every)


async def slow_headers(port: int, address: str) -> None:
    """Requests whose headers come a byte a second."""
    writer = await _open(port, address)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
    await _drip(writer, 1.0)


async def slow_bodies(port: int, address: str) -> None:
    """Requests whose bodies never end."""
    writer = await _open(port, address)
    writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
    await _drip(writer, 0.2)


async def half_handshakes(port: int, address: str) -> None:
    """WebSockets that never prove a key."""
    client = await RawClient.dial(port, address)
    await client.reader.read()


async def giant_messages(port: int, address: str) -> None:
    """Nodes that send all but the end of the largest message."""
    client = await RawClient.enter(port, address)
    client.writer.write(struct.pack(">BBQ", 0x82, 0xFF, 4 << 20) + bytes(4))
    for _ in range((4 << 20) // 65536 - 1):
        client.writer.write(bytes(65536))
        await client.writer.drain()
    await client.reader.read()


async def tiny_frames(port: int, address: str) -> None:
    """Nodes that ping as fast as they can, and read no answer."""
    client = await RawClient.enter(port, address)
    ping = struct.pack(">BB", 0x89, 0x80) + bytes(4)
    while True:
        client.writer.write(ping * 10_000)
        await client.writer.drain()


async def slow_readers(port: int, address: str) -> None:
    """Pairs of which one floods, and the other does not read."""
    sender = await RawClient.enter(port, address)
    receiver = await RawClient.enter(port, address)
    receiver.hears(sender)
    await receiver.message()
    receiver.writer.transport.pause_reading()  # type: ignore[attr-defined]
    to = receiver.keys.public_key
    while True:
        sender.send(Forward(to), bytes(65_000))
        await sender.writer.drain()


async def announcements(port: int, address: str) -> None:
    """Nodes that announce as often as they may and more, to all who listen."""
    client = await RawClient.enter(port, address)
    client.send(Subscribe(MODEL))
    said = Announcement(MODEL, 0, 8, 1e6, "onnxruntime", "native", 1 << 20, "x" * 32, "y" * 64)
    for number in itertools.count():
        client.send(Publish(await announce(client.keys, said, time.time() + number / 1000)))
        await client.writer.drain()
        await asyncio.sleep(0.01)


async def reconnects(port: int, address: str) -> None:
    """Nodes that enter, announce, and are gone."""
    client = await RawClient.enter(port, address)
    said = Announcement(MODEL, 0, 8, 1e6, "onnxruntime", "native", 1 << 20)
    client.send(Publish(await announce(client.keys, said, time.time())))
    await client.writer.drain()
    client.writer.transport.abort()


async def requests(port: int, address: str) -> None:
    """The dearest page, as fast as it is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    while not reader.at_eof():
        writer.write(b"GET /map.json HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
        await writer.drain()
        await reader.read(1 << 20)


async def noise(port: int, address: str) -> None:
    """Nodes that send frames of nonsense and come back."""
    client = await RawClient.enter(port, address)
    client.writer.write(websocket_message(os.urandom(100)))
    await client.reader.read()


ATTACKS: Final[dict[str, tuple[Callable[[int, str], Awaitable[None]], int]]] = {
    "slow headers": (slow_headers, 2000),
    "slow bodies": (slow_bodies, 1000),
    "half handshakes": (half_handshakes, 1000),
    "giant messages": (giant_messages, 400),
    "tiny frames": (tiny_frames, 32),
    "slow readers": (slow_readers, 100),
    "announcements": (announcements, 400),
    "reconnects": (reconnects, 64),
    "requests": (requests, 100),
    "noise": (noise, 64),
}
"""Each with the number of those who do it at once."""


async def attack(name: str, port: int, seconds: float) -> None:
    once, count = ATTACKS[name]
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.gather(*(_again(port, number, once) for number in range(count)))


if __name__ == "__main__":
    raise_open_files()
    os.nice(10)  # an attacker's machine would not be the relay's
    uvloop.run(attack(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
