"""What passing packets on costs: per core-second, and in time at half load."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from build.load.client import RawClient, websocket_message
from build.load.process import TICK, Measured
from pyodide_node.wire.frames import encode
from pyodide_node.wire.messages import Forward, to_frame

__all__ = ["Flow", "Latency", "carry", "echo_flow", "latency", "quantile", "relay_flow"]

PAYLOAD = 4096
_WINDOW = 1 << 20
"""Bytes under way from one sender: well below what a relay holds for a slow receiver."""


@dataclass(frozen=True)
class Flow:
    """From one client to another, which may be the same: `chunk()` is what to write next,
    `together` messages of `arriving` bytes each when they come out."""

    sender: RawClient
    receiver: RawClient
    chunk: Callable[[], bytes]
    together: int
    arriving: int


async def relay_flow(server: Measured, together: int, payload: int = PAYLOAD) -> Flow:
    a, b = await RawClient.enter(server.port), await RawClient.enter(server.port)
    b.hears(a)
    await b.message()
    to = b.keys.public_key
    size = len(websocket_message(encode(to_frame(Forward(to), bytes(payload))))) - 4
    return Flow(a, b, lambda: a.packets(to, bytes(payload), together, together)[0], together, size)


async def echo_flow(server: Measured, together: int, payload: int = PAYLOAD) -> Flow:
    client = await RawClient.dial(server.port)
    one = websocket_message(bytes(payload + 56))  # as long as the relay's frame
    return Flow(client, client, lambda: one * together, together, len(one) - 4)


async def carry(server: Measured, flows: list[Flow], count: int) -> tuple[float, float]:
    """Messages per second of the server's CPU, and per second of the clock."""
    chunks = [[flow.chunk() for _ in range(count // len(flows) // flow.together)] for flow in flows]
    total = sum(len(made) * flow.together for made, flow in zip(chunks, flows, strict=True))
    cpu, clock = server.cpu, time.monotonic()
    await asyncio.gather(*(_carry(flow, made) for flow, made in zip(flows, chunks, strict=True)))
    spent = max(server.cpu - cpu, TICK)
    return total / spent, total / (time.monotonic() - clock)


async def _carry(flow: Flow, chunks: list[bytes]) -> None:
    """Send what the other side has room for, as credits make nodes do."""
    room = asyncio.Semaphore(max(1, _WINDOW // len(chunks[0])))

    async def send() -> None:
        for chunk in chunks:
            await room.acquire()
            flow.sender.writer.write(chunk)
            await flow.sender.writer.drain()

    async def receive() -> None:
        arrived = released = 0
        while released < len(chunks):
            data = await flow.receiver.reader.read(1 << 20)
            assert data, "the server closed the connection"
            arrived += len(data)
            while released < arrived // (flow.arriving * flow.together):
                released += 1
                room.release()

    await asyncio.gather(send(), receive())


@dataclass(frozen=True)
class Latency:
    """Seconds from the write to the read of single messages, and the load meanwhile."""

    p50: float
    p99: float
    per_second: float
    cpu_share: float


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, math.floor(share * len(values)))]


async def latency(
    server: Measured, probe: Flow, load: list[Flow], rate: float, seconds: float
) -> Latency:
    """Of 4 KB messages, while `load` carries `rate` more a second."""
    done = asyncio.Event()
    sent = [0]

    async def push(flow: Flow) -> None:
        pause = flow.together * len(load) / rate
        due = time.monotonic()
        while not done.is_set():
            flow.sender.writer.write(flow.chunk())
            sent[0] += flow.together
            due += pause
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def pull(flow: Flow) -> None:
        with suppress(asyncio.CancelledError):
            while await flow.receiver.reader.read(1 << 20):
                pass

    pulling = [asyncio.create_task(pull(flow)) for flow in load]
    pushing = [asyncio.create_task(push(flow)) for flow in load]
    times: list[float] = []
    cpu, begun = server.cpu, time.monotonic()
    while (now := time.monotonic()) < begun + seconds:
        probe.sender.writer.write(probe.chunk())
        await probe.receiver.reader.readexactly(probe.arriving)
        times.append(time.monotonic() - now)
        await asyncio.sleep(0.002)
    spent, took = server.cpu - cpu, time.monotonic() - begun
    done.set()
    await asyncio.gather(*pushing)
    for task in pulling:
        task.cancel()
    await asyncio.gather(*pulling)
    return Latency(quantile(times, 0.5), quantile(times, 0.99), sent[0] / took, spent / took)
