"""What a relay costs: memory of an idle connection, packets forwarded per second of its CPU.

`python -m build.bench.relay` starts a relay of its own on the loopback, and prints both figures
with the seconds of CPU that they rest on. Clients send frames made beforehand, through raw
sockets, so that they do not take the core they share with the relay.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Final

from pyodide_node.hosts.crypto import SoftwareKeys
from pyodide_node.wire.frames import encode, parse
from pyodide_node.wire.messages import Challenge, Forward, Hello, decode, hello_bytes, to_frame

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_WINDOW: Final = 2 << 20
"""Bytes under way from one sender: well below what the relay holds for a slow receiver."""


@contextmanager
def running_relay() -> Iterator[tuple[int, int]]:
    """Port and process id of a relay of our own."""
    command = [sys.executable, "-u", "-m", "build.bench.relay", "--serve"]
    with Popen(command, stdout=PIPE, text=True) as process:  # noqa: S603 - our own command
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline()), process.pid
        finally:
            process.terminate()


async def serve() -> None:
    """The relay's process: prints its port, runs until it is ended."""
    from relay_server import Relay, RelaySettings

    settings = RelaySettings(
        port=0,
        stun=False,
        max_per_address=100_000,
        messages_per_second=1e9,
        bytes_per_second=1e12,
    )
    async with Relay(settings) as relay:
        print(relay.port, flush=True)
        await asyncio.Event().wait()


class RawClient:
    """A node on a raw socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.keys = SoftwareKeys(os.urandom(32), os.urandom)
        self.sequence = 0

    @classmethod
    async def enter(cls, port: int) -> RawClient:
        self = cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20))
        name = f"127.0.0.1:{port}"
        self.writer.write(
            f"GET /mesh HTTP/1.1\r\nHost: {name}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        await self.reader.readuntil(b"\r\n\r\n")
        challenge = decode(parse(await self.message()))
        assert isinstance(challenge, Challenge)
        signature = await self.keys.sign(hello_bytes(challenge.nonce, name))
        hello = Hello(self.keys.public_key, name, signature)
        self.writer.write(websocket_message(encode(to_frame(hello))))
        await self.message()
        self.sequence = 1
        return self

    async def message(self) -> bytes:
        size = (await self.reader.readexactly(2))[1]
        if size == 126:
            (size,) = struct.unpack(">H", await self.reader.readexactly(2))
        return await self.reader.readexactly(size)

    def packets(self, to: bytes, payload: bytes, count: int, together: int) -> list[bytes]:
        """`count` packets as bytes of the socket, `together` of them in a write."""
        made = []
        for _ in range(0, count, together):
            chunk = []
            for _ in range(together):
                frame = to_frame(Forward(to), payload, sequence=self.sequence)
                chunk.append(websocket_message(encode(frame)))
                self.sequence += 1
            made.append(b"".join(chunk))
        return made


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


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


async def idle_memory(port: int, pid: int, count: int) -> float:
    """Bytes a connection, once the first hundred have warmed the allocator up."""
    warm = [await RawClient.enter(port) for _ in range(100)]
    before = resident_bytes(pid)
    clients = [await RawClient.enter(port) for _ in range(count)]
    after = resident_bytes(pid)
    for client in (*warm, *clients):
        client.writer.close()
    return (after - before) / count


async def forwarding(
    port: int, pid: int, payload: int, count: int, together: int, window: int
) -> tuple[float, float]:
    """Packets per second of the relay's CPU, and per second of the clock."""
    pairs = 4
    loop = asyncio.get_running_loop()
    routes = [(await RawClient.enter(port), await RawClient.enter(port)) for _ in range(pairs)]
    made = [
        a.packets(b.keys.public_key, bytes(payload), count // pairs, together) for a, b in routes
    ]
    total = sum(map(len, made)) * together

    # Forwarded is as long as Forward; a server does not mask: four bytes less a message.
    message = len(made[0][0]) // together - 4

    async def carry(a: RawClient, b: RawClient, chunks: list[bytes]) -> None:
        """Send what the other side has room for, as credits make nodes do."""
        room = asyncio.Semaphore(max(1, window // len(chunks[0])))

        async def send() -> None:
            for chunk in chunks:
                await room.acquire()
                a.writer.write(chunk)
                await a.writer.drain()

        async def receive() -> None:
            arrived = released = 0
            while released < len(chunks):
                data = await b.reader.read(1 << 20)
                assert data, "the relay closed the connection"
                arrived += len(data)
                while released < arrived // (message * together):
                    released += 1
                    room.release()

        await asyncio.gather(send(), receive())

    cpu, clock = cpu_seconds(pid), loop.time()
    carried = (carry(a, b, chunks) for (a, b), chunks in zip(routes, made, strict=True))
    await asyncio.gather(*carried)
    cpu, clock = cpu_seconds(pid) - cpu, loop.time() - clock
    for client in (client for route in routes for client in route):
        client.writer.close()
    return total / cpu, total / clock


async def measure(connections: int, packets: int) -> None:
    with running_relay() as (port, pid):
        memory = await idle_memory(port, pid, connections)
        print(f"idle connection          {memory / 1000:8.1f} kB (of {connections})")
    for label, payload, together, window, share in (
        ("4 kB, streams", 4096, 16, _WINDOW, 1),
        ("4 kB, one at a time", 4096, 1, 1, 4),
        ("64 kB, streams", 65_000, 16, _WINDOW, 8),
    ):
        with running_relay() as (port, pid):
            count = packets // share // 64 * 64
            per_cpu, per_clock = await forwarding(port, pid, payload, count, together, window)
            print(
                f"{label:24} {per_cpu:8.0f} forwarded/core-second"
                f"  ({per_clock:.0f} /s here, {per_cpu * payload / 1e6:.0f} MB/core-second)"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--packets", type=int, default=40_000)
    options = parser.parse_args()
    if options.serve:
        import uvloop

        uvloop.run(serve())
    else:
        soft = 2 * options.connections + 1000
        if sys.platform != "win32":
            import resource

            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard), hard))
        socket.setdefaulttimeout(30)
        asyncio.run(measure(options.connections, options.packets))


if __name__ == "__main__":
    main()
