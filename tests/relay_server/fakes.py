"""A hub with nodes on sockets and clocks of the test's own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from pyodide_node.hosts.base import Buffer
from pyodide_node.hosts.crypto import SoftwareKeys
from pyodide_node.mesh.announcement import Announcement, announce
from pyodide_node.wire.frames import encode, parse
from pyodide_node.wire.messages import (
    Challenge,
    Hello,
    Message,
    Publish,
    decode,
    hello_bytes,
    to_frame,
)
from relay_server.hub import Hub
from relay_server.node import Node
from relay_server.settings import RelaySettings
from tests.relay_server.client import announcement

__all__ = ["FakeClock", "FakeNode", "FakeSocket", "World"]


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def wall(self) -> float:
        return 1_790_000_000.0 + self.now

    def monotonic(self) -> float:
        return self.now


class FakeSocket:
    """Keeps what is sent; with `reads` off it waits, as at a node that takes nothing."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.reads = True
        self.buffered = 0
        self.unfinished = 0
        self.written = 0
        self.holds: list[float] = []
        self.welcomed = False
        self.closed: tuple[int, str] | None = None
        self.aborted = False
        self.left: Callable[[], None] = lambda: None

    def send(self, *parts: Buffer) -> None:
        data = b"".join(parts)
        self.sent.append(data)
        self.written += len(data)
        if not self.reads:
            self.buffered += len(data)

    def drain(self, size: int) -> None:
        self.buffered -= size

    def welcome(self) -> None:
        self.welcomed = True

    def hold(self, seconds: float) -> None:
        self.holds.append(seconds)

    def close(self, code: int, reason: str = "") -> None:
        self.closed = code, reason
        self.left()

    def abort(self) -> None:
        self.aborted = True

    def take(self) -> list[Message]:
        """What was sent since the last time."""
        sent, self.sent = self.sent, []
        return [decode(parse(data)) for data in sent]


class FakeNode:
    """The far end of a FakeSocket."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.keys = SoftwareKeys(hashlib.sha256(name.encode()).digest(), bytes)
        self.key = self.keys.public_key
        self.socket = FakeSocket()
        self.node: Node = world.hub.connected(self.socket, "relay.test", f"host of {name}")
        self.socket.left = lambda: world.hub.disconnected(self.node)
        self.sequence = 0

    async def enter(self) -> None:
        (challenge,) = self.take()
        assert isinstance(challenge, Challenge)
        signature = await self.keys.sign(hello_bytes(challenge.nonce, "relay.test"))
        self.send(Hello(self.key, "relay.test", signature))

    def send(self, message: Message, payload: Buffer = b"") -> None:
        data = encode(to_frame(message, payload, sequence=self.sequence))
        self.sequence += 1
        self.world.hub.received(self.node, data)

    async def publish(self, said: Announcement | None = None) -> bytes:
        record = await announce(self.keys, said or announcement(), self.world.clock.wall())
        self.send(Publish(record))
        return record

    def take(self) -> list[Message]:
        return self.socket.take()

    def hears(self, peer: FakeNode) -> None:
        """Packets of this peer are welcome."""
        self.node.wrote_to(peer.key)

    def leave(self) -> None:
        self.world.hub.disconnected(self.node)


class World:
    def __init__(self, settings: RelaySettings | None = None) -> None:
        self.clock = FakeClock()
        self.calls: list[tuple[float, Callable[[], None]]] = []
        self.hub = Hub(settings or RelaySettings(), self.clock, self._later)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self.calls.append((seconds, call))

    def run_calls(self) -> list[float]:
        """Do what was put off; the seconds that each would have waited."""
        calls, self.calls = self.calls, []
        for _, call in calls:
            call()
        return [seconds for seconds, _ in calls]

    async def node(self, name: str) -> FakeNode:
        """A node that has entered; its Welcome is taken already."""
        node = FakeNode(self, name)
        await node.enter()
        node.take()
        return node

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.hub.sweep()
