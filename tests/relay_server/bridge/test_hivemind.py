"""Real hivemind reads our blocks, keeps records with us, and goes on without us."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyodide_node.hosts.crypto import SoftwareKeys
from relay_server import Relay
from relay_server.bridge import hivemind_pb2
from relay_server.bridge.petals import MODELS
from tests.relay_server.bridge.processes import BridgeProcess, HivemindPeer, hivemind_peers
from tests.relay_server.client import MODEL, Client, announcement

pytest.importorskip("libp2p", reason="no libp2p: build/setup.sh federation")

pytestmark = pytest.mark.slow

UID = f"kwaainet-{MODEL.hex()[:12]}"
OFFLINE = [0, 0.0, {}]
NAMES = {
    "Envelope": "PersistentConnectionRequest",
    "Call": "CallUnaryRequest",
    "Answer": "CallUnaryResponse",
    "Node": "NodeInfo",
    "PingAnswer": "PingResponse",
    "StoreAnswer": "StoreResponse",
    "FindAnswer": "FindResponse",
    "Found": "FindResult",
}
"""Our names of messages where hivemind has others."""


@pytest.fixture(scope="module")
def peers() -> Iterator[list[HivemindPeer]]:
    with hivemind_peers(2) as peers:
        yield peers


@contextlib.asynccontextmanager
async def bridged(
    relay: Relay, first: HivemindPeer, state: Path, *options: str
) -> AsyncIterator[BridgeProcess]:
    bridge = await asyncio.to_thread(BridgeProcess, relay.url, first, state, *options)
    try:
        yield bridge
    finally:
        bridge.close()


async def announced(peer: HivemindPeer, bridge: BridgeProcess, blocks: int) -> list[Any]:
    """What `peer` finds under each of the first blocks, by the bridge."""
    names = [f"{UID}.{block}" for block in range(blocks)]
    found = await asyncio.to_thread(peer.ask, "get", names)
    return [(found[name] or {}).get(bridge.peer) for name in names]


def test_our_messages_are_hiveminds(peers: list[HivemindPeer]) -> None:
    theirs = peers[0].ask("fields")
    file: Any = hivemind_pb2.DESCRIPTOR
    for name, message in file.message_types_by_name.items():
        for field in message.fields:
            want = theirs[NAMES.get(name, name)][str(field.number)]
            assert [field.type, field.is_repeated] == want, (name, field.name)


async def test_hivemind_reads_every_block_as_long_as_it_is_served(
    relay: Relay, peers: list[HivemindPeer], tmp_path: Path
) -> None:
    first, second = peers
    async with (
        Client(relay.mesh_url) as node,
        Client(relay.mesh_url) as other,
        bridged(relay, first, tmp_path) as bridge,
    ):
        await node.publish(announcement(first=0, last=4))
        await asyncio.to_thread(bridge.until, "4 blocks announced")
        more = {"public_name": "kwaainet bridge", "start_block": 0, "end_block": 4}
        for peer in peers:
            assert await announced(peer, bridge, 5) == [[1, 25.0, more]] * 4 + [None]
            listed = (await asyncio.to_thread(peer.ask, "get", [MODELS]))[MODELS][UID]
            assert listed["repository"].startswith(relay.url)

        await other.publish(announcement(first=4, last=6))
        await asyncio.to_thread(bridge.until, "6 blocks announced")
        assert None not in await announced(second, bridge, 6)

        await other.socket.close()
        await asyncio.to_thread(bridge.until, "4 blocks announced, 2 taken back")
        assert (await announced(second, bridge, 6))[3:] == [[1, 25.0, more], OFFLINE, OFFLINE]

        status = await asyncio.to_thread(bridge.signal, signal.SIGTERM)
        assert status == 0
        assert await announced(second, bridge, 6) == [OFFLINE] * 6


async def test_hivemind_pings_us_stores_with_us_and_finds_it_again(
    relay: Relay, peers: list[HivemindPeer], tmp_path: Path
) -> None:
    first, second = peers
    async with Client(relay.mesh_url) as node, bridged(relay, first, tmp_path) as bridge:
        await node.publish(announcement(first=0, last=1))
        await asyncio.to_thread(bridge.until, "1 blocks announced")
        id = await asyncio.to_thread(second.ask, "ping", bridge.peer)
        assert len(bytes.fromhex(id)) == 20
        assert await asyncio.to_thread(second.ask, "give", bridge.peer, "k", [1, "a"], 60) == [True]
        value, near = await asyncio.to_thread(first.ask, "ask", bridge.peer, "k")
        assert value == [1, "a"]
        assert near == [second.peer]
        # Whoever stores in a DHT of three stores with all of them.
        assert await asyncio.to_thread(first.ask, "store", "by all", "sub", 7, 60)
        held, _ = await asyncio.to_thread(second.ask, "ask", bridge.peer, "by all")
        assert held == {"sub": 7}
        # Expired, and of an owner who did not sign it.
        assert await asyncio.to_thread(second.ask, "give", bridge.peer, "late", 1, -5) == [False]
        for forged in (False, True):
            told = await asyncio.to_thread(second.ask, "give_owned", bridge.peer, "own", forged)
            assert told == [not forged]


async def test_hivemind_goes_on_when_the_bridge_dies_and_a_new_one_is_the_same(
    relay: Relay, peers: list[HivemindPeer], tmp_path: Path
) -> None:
    first, second = peers
    keys = SoftwareKeys(os.urandom(32), os.urandom)
    async with Client(relay.mesh_url, keys) as node:
        await node.publish(announcement(first=0, last=2))
        async with bridged(relay, first, tmp_path) as bridge:
            await asyncio.to_thread(bridge.until, "2 blocks announced")
            await asyncio.to_thread(bridge.signal, signal.SIGKILL)
        assert await asyncio.to_thread(second.ask, "store", "after", None, 1, 60)
        assert (await asyncio.to_thread(first.ask, "get", ["after"]))["after"] == 1
        assert await asyncio.to_thread(second.ask, "ping", bridge.peer) is None
        assert None not in await announced(second, bridge, 2)  # until they expire
        async with bridged(relay, first, tmp_path, "--announce-state", "online") as again:
            assert again.peer == bridge.peer
            await asyncio.to_thread(again.until, "2 blocks announced")
            states = [one[0] for one in await announced(second, again, 2)]
            assert states == [2, 2]
