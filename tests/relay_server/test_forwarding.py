"""Packets pass from node to node, unread, and a node that is not there costs nobody anything."""

from __future__ import annotations

from pyodide_node.wire.messages import Undelivered
from relay_server import Relay
from tests.relay_server.client import Client


async def test_a_packet_reaches_the_node_it_is_for(relay: Relay) -> None:
    async with Client(relay.mesh_url) as a, Client(relay.mesh_url) as b:
        await b.hears(a)
        await a.forward(b.key, b"sealed")
        assert await b.forwarded() == (a.key, b"sealed")


async def test_packets_keep_their_order(relay: Relay) -> None:
    async with Client(relay.mesh_url) as a, Client(relay.mesh_url) as b:
        await b.hears(a)
        packets = [bytes([n]) * (n * 40) for n in range(100)]
        for packet in packets:
            await a.forward(b.key, packet)
        assert [(await b.forwarded())[1] for _ in packets] == packets


async def test_what_is_for_nobody_comes_back_as_undelivered(relay: Relay) -> None:
    async with Client(relay.mesh_url) as a:
        await a.forward(bytes(32), b"sealed")
        assert await a.expect(Undelivered) == Undelivered(bytes(32), "absent")
