"""Two links and what lies between them: a relay's way that tests may tamper with."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pyodide_node.hosts.base import Buffer, Host
from pyodide_node.hosts.simulated import SimulatedNetwork, simulated_host
from pyodide_node.mesh.link import Link
from pyodide_node.mesh.paths import Path, PathPolicy
from pyodide_node.wire.messages import CloseSession, Message

__all__ = ["End", "Pair", "SlowKeys", "numbered", "pair"]

DELAY = 0.010


def numbered(number: int) -> CloseSession:
    """A message that tests can tell from another."""
    return CloseSession(number.to_bytes(16, "big"))


class SlowKeys:
    """Keys whose every operation lets others run meanwhile, as WebCrypto does."""

    def __init__(self, keys: Any, seconds: Callable[[], float]) -> None:
        self._keys = keys
        self._seconds = seconds

    @property
    def public_key(self) -> bytes:
        key: bytes = self._keys.public_key
        return key

    def random(self, count: int) -> bytes:
        data: bytes = self._keys.random(count)
        return data

    async def sign(self, data: Buffer) -> bytes:
        await asyncio.sleep(self._seconds())
        signature: bytes = await self._keys.sign(data)
        return signature

    async def verify(self, public_key: bytes, signature: bytes, data: Buffer) -> bool:
        await asyncio.sleep(self._seconds())
        valid: bool = await self._keys.verify(public_key, signature, data)
        return valid

    async def agreement(self) -> Any:
        await asyncio.sleep(self._seconds())
        return await self._keys.agreement()


@dataclass
class End:
    """One side: its link, what came, and by which path."""

    host: Host
    link: Link
    got: list[Message] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)

    @property
    def numbers(self) -> list[int]:
        return [int.from_bytes(one.session, "big") for one in self.got]  # type: ignore[attr-defined]

    def received(self, message: Message, payload: Buffer, path: Path) -> None:
        self.got.append(message)
        self.paths.append(path)
        self.payloads.append(bytes(payload))


Tamper = Callable[[bytes], Sequence[bytes]]


def honest(packet: bytes) -> Sequence[bytes]:
    return [packet]


class Pair:
    """`ada` has the smaller key. `from_ada` and `from_bob` may change what passes."""

    def __init__(self, *, policy: PathPolicy, seed: int, slow: Callable[[], float] | None) -> None:
        self.network = SimulatedNetwork(seed=seed, delay=DELAY)
        self._policy: PathPolicy = policy
        self._slow = slow
        self._last = 0.0
        self.relay_up = True
        self.from_ada: Tamper = honest
        self.from_bob: Tamper = honest
        self.passed: list[tuple[str, bytes]] = []
        hosts = [self.make_host(name) for name in ("one", "two")]
        hosts.sort(key=lambda host: host.keys.public_key)
        self.ada = self._end(hosts[0], hosts[1].keys.public_key)
        self.bob = self._end(hosts[1], hosts[0].keys.public_key)

    def make_host(self, name: str) -> Host:
        host: Host = simulated_host(self.network, name)
        if self._slow is not None:
            host = dataclasses.replace(host, keys=SlowKeys(host.keys, self._slow))
        return host

    async def restart(self, end: End) -> End:
        """The node of `end` begins anew with the same keys; nothing is told to the other."""
        await end.link.close()
        fresh = self._end(end.host, end.link.peer)
        if end is self.ada:
            self.ada = fresh
        else:
            self.bob = fresh
        return fresh

    def _end(self, host: Host, peer: bytes) -> End:
        end = End(
            host,
            Link(
                host,
                peer,
                policy=self._policy,
                ice_servers=list,
                forward=lambda packet: self._forward(host, packet),
                reach=self._drain,
                drain_relay=self._drain,
                received=lambda message, payload, path: end.received(message, payload, path),
            ),
        )
        end.link.start()
        return end

    def _forward(self, host: Host, packet: bytes) -> bool:
        if not self.relay_up:
            return False
        from_ada = host.keys.public_key == self.ada.host.keys.public_key
        self.passed.append(("ada" if from_ada else "bob", packet))
        for out in (self.from_ada if from_ada else self.from_bob)(packet):
            self.inject(out, to_bob=from_ada)
        return True

    def inject(self, packet: bytes, *, to_bob: bool) -> None:
        """Let a packet arrive as if the other had sent it."""

        def arrive() -> None:
            (self.bob if to_bob else self.ada).link.take_packet(packet)

        loop = asyncio.get_running_loop()
        # Timers set for the same moment fire in any order; a relay keeps it.
        self._last = max(loop.time() + DELAY, self._last + 1e-9)
        loop.call_at(self._last, arrive)

    async def _drain(self) -> None:
        pass


@asynccontextmanager
async def pair(
    *, policy: PathPolicy = "relay", seed: int = 0, slow: Callable[[], float] | None = None
) -> AsyncIterator[Pair]:
    built = Pair(policy=policy, seed=seed, slow=slow)
    try:
        yield built
    finally:
        await built.ada.link.close()
        await built.bob.link.close()
