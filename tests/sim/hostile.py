"""Who means ill: a peer that says what it likes, and a relay that changes what passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pyodide_node.core import KwaaiNetCore
from pyodide_node.hosts.base import Buffer
from pyodide_node.hosts.simulated import SimulatedHost, simulated_host
from pyodide_node.hosts.simulated.relay import RelayConnection
from pyodide_node.inference.serving import Serving
from pyodide_node.mesh.announcement import Announcement, announce
from pyodide_node.mesh.mesh import Mesh
from pyodide_node.mesh.paths import Path
from pyodide_node.mesh.peer import public_key_of
from pyodide_node.wire.frames import Frame, encode, parse
from pyodide_node.wire.messages import Message, OpenSession

from .swarm import RELAY, HubSocket, Swarm

__all__ = ["Outsider", "Tampering", "key_of", "opening", "outsider", "serving_of", "tampering"]


def key_of(core: KwaaiNetCore) -> bytes:
    return public_key_of(core.peer)


def serving_of(core: KwaaiNetCore) -> Serving:
    assert core._work is not None
    return core._work.serving


@dataclass
class Outsider:
    """A node of the mesh that runs no code of ours above it."""

    host: SimulatedHost
    mesh: Mesh
    got: list[tuple[bytes, Message, bytes]] = field(default_factory=list)
    next: bytes = b""
    """To whom the session it opened last passes things on."""

    @property
    def key(self) -> bytes:
        return self.host.keys.public_key

    def of(self, kind: type[Message]) -> list[Message]:
        return [message for _, message, _ in self.got if isinstance(message, kind)]

    async def say(self, core: KwaaiNetCore, message: Message, payload: Buffer = b"") -> None:
        """Send, and give the other time to answer."""
        self.mesh.send(key_of(core), message, payload)
        await asyncio.sleep(0.3)

    async def announces(self, model: str, first: int, last: int, speed: float = 1e8) -> None:
        said = Announcement(
            model=bytes.fromhex(model),
            first=first,
            last=last,
            throughput=speed,
            engine="simulated",
            host="simulated",
            free_positions=1_000_000,
        )
        self.mesh.publish(await announce(self.host.keys, said, self.host.clock.wall()))
        await asyncio.sleep(0.3)


@asynccontextmanager
async def outsider(
    net: Swarm, name: str, answer: Callable[[Outsider, bytes, Message], None] | None = None
) -> AsyncIterator[Outsider]:
    """An outsider that has entered the relay; `answer` gets each message that comes."""
    host = simulated_host(net.network, name)

    def received(peer: bytes, message: Message, payload: Buffer, path: Path) -> None:
        made.got.append((peer, message, bytes(payload)))
        if answer is not None:
            answer(made, peer, message)

    mesh = Mesh(
        host, policy="auto", received=received, changed=lambda: None, gone=lambda peer: None
    )
    made = Outsider(host, mesh)
    mesh.join([RELAY])
    await mesh.joined(5)
    try:
        yield made
    finally:
        await mesh.close()


def opening(net: Swarm, asker: bytes, *, session: int = 1, **changes: object) -> OpenSession:
    """An honest opening of all blocks for one who feeds it and wants the result."""
    fields = {
        "session": session.to_bytes(16, "big"),
        "hop": 0,
        "model": bytes.fromhex(net.model.manifest.model_id),
        "first": 0,
        "last": net.model.manifest.blocks,
        "capacity": 64,
        "previous": asker,
        "next": asker,
        "final": True,
    }
    return OpenSession(**fields | changes)  # type: ignore[arg-type]


Change = Callable[[str, Frame], Sequence[Frame]]
"""(host, frame) → the frames that pass in its place."""


def unchanged(host: str, frame: Frame) -> Sequence[Frame]:
    return [frame]


@dataclass
class Tampering:
    """What a relay does to the frames it passes on, and what it says of its own."""

    to_node: Change = unchanged
    from_node: Change = unchanged
    connections: dict[str, RelayConnection] = field(default_factory=dict)
    counts: dict[str, list[int]] = field(default_factory=dict)

    def push(self, host: str, frame: Frame) -> None:
        """A frame that no honest relay would have sent."""
        count = self.counts[host]
        self.connections[host].send(encode(_numbered(frame, count)))


def tampering(net: Swarm) -> Tampering:
    """Put a malicious relay in the place of the swarm's; call before nodes join."""
    relay = Tampering()

    class Socket(HubSocket):
        def __init__(self, connection: RelayConnection) -> None:
            super().__init__(connection)
            self._host = connection.host

        def send(self, *parts: Buffer) -> None:
            for frame in relay.to_node(self._host, parse(b"".join(parts))):
                super().send(encode(_numbered(frame, relay.counts[self._host])))

    async def handle(connection: RelayConnection) -> None:
        host, received = connection.host, [0]
        relay.connections[host], relay.counts[host] = connection, [0]
        node = net.hub.connected(Socket(connection), "relay.test", host)
        try:
            async for message in connection:
                for frame in relay.from_node(host, parse(message)):
                    net.hub.received(node, encode(_numbered(frame, received)))
        finally:
            net.hub.disconnected(node)

    net.network.relay(RELAY, handle)
    return relay


def _numbered(frame: Frame, count: list[int]) -> Frame:
    number = count[0]
    count[0] += 1
    return Frame(
        type=frame.type,
        stream=frame.stream,
        sequence=number,
        body=frame.body,
        payload=bytes(frame.payload),
    )
