"""A relay under attack: what it holds, and what honest nodes notice."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass

from build.load.attacker import MODEL
from build.load.client import RawClient
from build.load.forwarding import quantile
from build.load.process import relay
from pyodide_node.wire.frames import parse
from pyodide_node.wire.messages import Forward, Forwarded, Subscribe, decode

__all__ = ["Attacked", "attacked"]

_QUIET = 2.0
"""Seconds before the attack, to compare with."""
_EVERY = 0.01


@dataclass(frozen=True)
class Attacked:
    name: str
    before: int
    peak: int
    after: int
    """Bytes resident."""
    quiet_p99: float
    p50: float
    p99: float
    """Seconds that an honest node's 4 KB take to another, before and during the attack."""
    join_p99: float
    """Seconds that an honest node takes to enter meanwhile."""
    cpu_share: float


async def attacked(name: str, seconds: float) -> Attacked:
    """A relay with its defaults. Raises AssertionError when an honest node is cut."""
    with relay() as server:
        a, b = await RawClient.enter(server.port), await RawClient.enter(server.port)
        b.hears(a)
        b.send(Subscribe(MODEL))
        quiet = await _probe(a, b, _QUIET)
        before = server.resident
        server.forget_peak()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "build.load.attacker", name, str(server.port), str(seconds)
        )
        cpu, begun = server.cpu, time.monotonic()
        joins = asyncio.create_task(_joins(server.port, seconds))
        times = await _probe(a, b, seconds)
        share = (server.cpu - cpu) / (time.monotonic() - begun)
        waits = await joins
        await process.wait()
        peak = server.peak
        await _probe(a, b, 1.0)
        return Attacked(
            name,
            before,
            peak,
            server.resident,
            quantile(quiet, 0.99),
            quantile(times, 0.5),
            quantile(times, 0.99),
            quantile(waits, 0.99),
            share,
        )


async def _probe(a: RawClient, b: RawClient, seconds: float) -> list[float]:
    """Sent when they are due, whether the one before has come or not: else a long wait would
    count once only."""
    due = [time.monotonic() + number * _EVERY for number in range(int(seconds / _EVERY))]

    async def send() -> None:
        for moment in due:
            await asyncio.sleep(moment - time.monotonic())
            a.send(Forward(b.keys.public_key), bytes(4096))

    async def receive() -> list[float]:
        times = []
        for moment in due:
            while not isinstance(decode(parse(await b.message())), Forwarded):
                pass
            times.append(time.monotonic() - moment)
        return times

    _, times = await asyncio.gather(send(), receive())
    return times


async def _joins(port: int, seconds: float) -> list[float]:
    """Honest nodes that enter one after the other, from an address of their own."""
    waits = []
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        client = await RawClient.enter(port, "127.0.3.1")
        waits.append(time.monotonic() - now)
        client.writer.close()
        await asyncio.sleep(0.1)
    return waits
