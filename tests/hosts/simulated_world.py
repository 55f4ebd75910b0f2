"""The simulated world's handles."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from pyodide_node.hosts.base import BlobReader, Buffer, Host
from pyodide_node.hosts.simulated import (
    RelayConnection,
    SimulatedHost,
    SimulatedNetwork,
    simulated_host,
    simulated_model,
)
from tests.hosts.worlds import RelaySide


class Side:
    def __init__(self, connection: RelayConnection) -> None:
        self._connection = connection

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._connection.__aiter__()

    async def send(self, data: Buffer) -> None:
        self._connection.send(data)

    async def close(self) -> None:
        await self._connection.close()


class SimulatedWorld:
    exact = True

    def __init__(self) -> None:
        self.network = SimulatedNetwork(seed=7)
        self.model = simulated_model()
        self.manifest = self.model.manifest

    async def host(self, name: str = "ada", *, denied: bool = False) -> Host:
        host = simulated_host(self.network, name)
        host.store.faults.denied = denied
        return host

    async def relay(self, handler: Callable[[RelaySide], Awaitable[None]]) -> str:
        self.network.relay("wss://relay", lambda connection: handler(Side(connection)))
        return "wss://relay"

    def publish(self, path: str, content: bytes, *, ranges: bool = True) -> str:
        url = f"https://web/{path}"
        self.network.web[url] = content
        if not ranges:
            self.network.rangeless.add(url)
        return url

    def nowhere(self, scheme: str) -> str:
        return f"{scheme}://nowhere"

    @contextlib.contextmanager
    def full(self, host: Host) -> Iterator[None]:
        assert isinstance(host, SimulatedHost)
        host.store.faults.full = True
        yield
        host.store.faults.full = False

    def damage(self, host: Host, sha256: str) -> None:
        assert isinstance(host, SimulatedHost)
        host.store.faults.damaged.add(sha256)

    @property
    def blob(self) -> BlobReader:
        async def read(sha256: str, size: int) -> bytes:
            return self.model.blobs[sha256]

        return read

    async def close(self) -> None:
        pass
