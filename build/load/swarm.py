"""Many nodes: how much an idle one takes, how fast they join, and how they come back."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

from build.load.client import RawClient, source, websocket_message
from build.load.process import TICK, Measured, free_port, relay
from pyodide_node.errors import Unreachable
from pyodide_node.hosts.base import Buffer, Host, PeerConnection, PeerEvents
from pyodide_node.hosts.crypto import SoftwareKeys
from pyodide_node.mesh.relay_client import RelayClient
from pyodide_node.wire.messages import IceServer

__all__ = ["Joined", "Rejoin", "idle_echo", "join", "rejoin"]

_AT_ONCE = 32
_PATIENCE = 90.0


@dataclass(frozen=True)
class Joined:
    bytes_each: float
    per_second: float
    per_core_second: float


async def join(server: Measured, count: int, dial: Any = RawClient.enter) -> Joined:
    """`count` nodes that enter and then say nothing."""
    clients: list[RawClient] = []
    numbers = iter(range(100, 100 + count))

    async def some(numbers: Any) -> None:
        for number in numbers:
            clients.append(await dial(server.port, source(number)))

    await some(range(100))  # which warm the allocator up
    before, cpu, begun = server.resident, server.cpu, time.monotonic()
    await asyncio.gather(*(some(numbers) for _ in range(_AT_ONCE)))
    took, spent = time.monotonic() - begun, max(server.cpu - cpu, TICK)
    joined = Joined((server.resident - before) / count, count / took, count / spent)
    for client in clients:
        client.writer.close()
    return joined


async def idle_echo(server: Measured, count: int) -> Joined:
    return await join(server, count, RawClient.dial)


@dataclass(frozen=True)
class Rejoin:
    """Seconds after the relay was killed, unless they say otherwise."""

    restart: float
    """From its start to its first answer."""
    half: float
    all: float
    most_in_100_ms: int
    refused: int
    peak: int
    """Bytes resident at most meanwhile."""


class _Socket:
    """`base.RelaySocket` in few lines: two thousand of them share one core."""

    buffered = 0

    def __init__(
        self, client: RawClient, received: Callable[[bytes], None], closed: Callable[[str], None]
    ) -> None:
        self._client = client
        self._reading = asyncio.create_task(self._read(received, closed))

    def send(self, data: Buffer) -> None:
        self._client.writer.write(websocket_message(bytes(data)))

    async def drain(self) -> None: ...

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.wait([self._reading])
        self._client.writer.close()

    async def _read(self, received: Callable[[bytes], None], closed: Callable[[str], None]) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                received(await self._client.message())
        closed("lost")


class _Transport:
    """Dials from an address of the loopback of its own choice."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.refused = 0

    async def dial(
        self, url: str, received: Callable[[bytes], None], closed: Callable[[str], None]
    ) -> _Socket:
        try:
            client = await RawClient.dial(urlsplit(url).port or 0, self._address)
        except OSError as error:
            self.refused += not isinstance(error, ConnectionRefusedError)
            raise Unreachable(str(error), url=url) from error
        return _Socket(client, received, closed)

    def connect(
        self, *, initiator: bool, ice_servers: Sequence[IceServer], events: PeerEvents
    ) -> PeerConnection:
        raise NotImplementedError


class _Clock:
    wall = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


async def rejoin(count: int) -> Rejoin:
    """The nodes' own `RelayClient`s lose a relay that is killed and started again."""
    port = free_port()
    url = f"ws://127.0.0.1:{port}/mesh"
    entered: list[float] = []
    transports = [_Transport(source(number)) for number in range(count)]
    clients = []
    for transport in transports:
        host = Host(
            kind="native",
            clock=_Clock(),
            keys=SoftwareKeys(os.urandom(32), os.urandom),
            transport=transport,
            engine=cast(Any, None),
            store=cast(Any, None),
        )
        changed = lambda up: entered.append(time.monotonic()) if up else None  # noqa: E731
        clients.append(RelayClient(host, [url], lambda *_: None, changed))
    with relay(port=port):
        for start in range(0, count, _AT_ONCE):
            some = clients[start : start + _AT_ONCE]
            for client in some:
                client.start()
            await asyncio.gather(*(client.entered(_PATIENCE) for client in some))
        entered.clear()
        for transport in transports:
            transport.refused = 0
    killed = time.monotonic()
    with relay(port=port) as server:
        await _until(lambda: len(entered) >= count)
        peak = server.peak
        await asyncio.gather(*(client.close() for client in clients))
    after = sorted(moment - killed for moment in entered[:count])
    slots = [int(moment * 10) for moment in after]
    return Rejoin(
        restart=server.start_seconds,
        half=after[count // 2],
        all=after[-1],
        most_in_100_ms=max(slots.count(slot) for slot in set(slots)),
        refused=sum(transport.refused for transport in transports),
        peak=peak,
    )


async def _until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(_PATIENCE):
        while not met():  # noqa: ASYNC110 - the clients tell of nothing else
            await asyncio.sleep(0.05)
