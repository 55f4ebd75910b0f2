"""A direct channel leaves nothing behind, however it ends."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence

from pyodide_node.hosts.base import Buffer, PeerEvents, Signal
from pyodide_node.hosts.simulated import SimulatedNetwork, simulated_host, virtual
from pyodide_node.mesh.channel import DirectChannel
from pyodide_node.wire.messages import SignalMessage


class FakeConnection:
    """A connection whose end takes a while, as an ICE agent's does."""

    def __init__(self, events: PeerEvents) -> None:
        self.events = events
        self.closed = False
        self.buffered = 0

    async def signal(self, signal: Signal) -> None:
        pass

    def send(self, data: Buffer) -> None:
        pass

    async def drain(self) -> None:
        pass

    async def close(self) -> None:
        await asyncio.sleep(0.1)
        self.closed = True


class FakeTransport:
    def __init__(self) -> None:
        self.made: list[FakeConnection] = []

    def connect(
        self, *, initiator: bool, ice_servers: Sequence[str], events: PeerEvents
    ) -> FakeConnection:
        self.made.append(FakeConnection(events))
        return self.made[-1]


def channel(transport: FakeTransport, states: list[bool], *, initiator: bool) -> DirectChannel:
    host = simulated_host(SimulatedNetwork(), "ada")
    return DirectChannel(
        dataclasses.replace(host, transport=transport),  # type: ignore[arg-type]
        initiator=initiator,
        ice_servers=list,
        signal=lambda message: None,
        received=lambda data: None,
        changed=states.append,
    )


@virtual
async def test_closing_it_closes_every_connection_that_it_made() -> None:
    transport, states = FakeTransport(), list[bool]()
    made = channel(transport, states, initiator=True)
    made.start()
    await asyncio.sleep(8)  # the first attempt has failed, the second is under way
    transport.made[-1].events.opened()
    transport.made[-1].events.closed("lost")
    await made.close()
    await asyncio.sleep(1)
    assert len(transport.made) == 2
    assert all(connection.closed for connection in transport.made)
    assert states == [True, False]


@virtual
async def test_what_a_replaced_connection_still_says_is_not_heard() -> None:
    transport, states = FakeTransport(), list[bool]()
    made = channel(transport, states, initiator=False)
    made.start()
    for attempt in (1, 2):
        made.take_signal(SignalMessage(attempt, "offer", "v=0", "", 0))
        await asyncio.sleep(0.01)
    old, new = transport.made
    old.events.opened()
    old.events.signal(Signal(kind="answer", sdp="v=0"))
    old.events.received(b"old")
    old.events.closed("replaced")
    assert states == []
    new.events.opened()
    assert states == [True]
    made.take_signal(SignalMessage(1, "offer", "v=0", "", 0))
    await asyncio.sleep(0.01)
    assert len(transport.made) == 2
    await made.close()
