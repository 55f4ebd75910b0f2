"""Whatever one connection does wrong, it is told so and closed, and the others go on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from pyodide_node.wire import limits
from pyodide_node.wire.frames import Frame, encode, fragments
from pyodide_node.wire.messages import (
    Challenge,
    Forward,
    Forwarded,
    Gone,
    PathPing,
    Ping,
    Pong,
    Undelivered,
    Welcome,
    to_frame,
)
from relay_server import Relay, RelaySettings
from tests.relay_server.client import PATIENCE, Client
from tests.relay_server.http import get


@pytest.fixture
async def bystanders(relay: Relay) -> AsyncIterator[tuple[Client, Client]]:
    """Two nodes that can still talk when the test is over."""
    async with Client(relay.mesh_url) as a, Client(relay.mesh_url) as b:
        await b.hears(a)
        yield a, b
        await a.forward(b.key, b"still here")
        assert await b.forwarded() == (a.key, b"still here")


GOOD = encode(to_frame(Ping(1), sequence=1))
MALFORMED = {
    "nothing": b"",
    "short": GOOD[:19],
    "truncated": GOOD[:-1],
    "longer than it says": GOOD + b"x",
    "another version": b"\2" + GOOD[1:],
    "unknown type": encode(Frame(type=200, sequence=1)),
    "a message between nodes": encode(to_frame(PathPing(1), sequence=1)),
    "a message of relays": encode(to_frame(Gone(bytes(32)), sequence=1)),
    "a malformed body": encode(Frame(type=11, sequence=1, body=b"\x91\xa3\xff\xff\xff")),
    "a fragment": next(fragments(to_frame(Ping(1), bytes(5000), sequence=1))),
    "a repeated number": encode(to_frame(Ping(1), sequence=0)),
    "a skipped number": encode(to_frame(Ping(1), sequence=2)),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_message_ends_its_own_connection(
    relay: Relay, bystanders: tuple[Client, Client], data: bytes
) -> None:
    node = Client(relay.mesh_url)
    await node.dial()
    await node.enter()
    await node.socket.send(data)
    assert await node.refused() == ("ProtocolError", 1002)
    assert relay.hub.counters.refused == {"ProtocolError": 1}
    assert len(relay.hub) == 2


async def test_text_is_refused(relay: Relay, bystanders: tuple[Client, Client]) -> None:
    node = Client(relay.mesh_url)
    await node.dial()
    await node.enter()
    await node.socket.send("hello")
    assert await node.refused() == ("ProtocolError", 1002)


async def test_a_message_over_the_limit_is_refused(
    relay: Relay, bystanders: tuple[Client, Client]
) -> None:
    node = Client(relay.mesh_url)
    await node.dial()
    await node.enter()
    with suppress(ConnectionClosed):  # before the last of it was sent
        await node.socket.send(bytes(limits.SOCKET_MESSAGE + 1))
    assert await node.refused() == ("ProtocolError", 1009)


async def test_what_follows_a_mistake_is_not_read(relay: Relay) -> None:
    async with Client(relay.mesh_url) as other:
        node = Client(relay.mesh_url)
        await node.dial()
        await node.enter()
        mistake = encode(Frame(type=200, sequence=1))
        await asyncio.gather(
            node.socket.send(mistake), node.forward(other.key, b"too late"), node.refused()
        )
        assert relay.hub.counters.forwarded_frames == 0


async def test_a_message_in_websocket_fragments_is_one_message(relay: Relay) -> None:
    async with Client(relay.mesh_url) as node:
        data = encode(to_frame(Ping(7), sequence=node.sequence))
        await node.socket.send([data[:5], b"", data[5:6], data[6:]])
        node.sequence += 1
        assert await node.expect(Pong) == Pong(7)
        await node.send(Ping(8))
        assert await node.expect(Pong) == Pong(8)


async def test_a_websocket_ping_is_answered(relay: Relay) -> None:
    async with Client(relay.mesh_url) as node, asyncio.timeout(PATIENCE):
        await (await node.socket.ping())


async def test_a_message_of_the_largest_size_passes(relay: Relay) -> None:
    async with Client(relay.mesh_url) as a, Client(relay.mesh_url) as b:
        await b.hears(a)
        room = limits.MESSAGE - len(to_frame(Forward(b.key)).body)
        packet = bytes(range(256)) * (room // 256)
        await a.forward(b.key, packet)
        assert await b.forwarded() == (a.key, packet)


@pytest.mark.parametrize("how", ["closes", "breaks"])
async def test_who_has_left_is_absent(relay: Relay, how: str) -> None:
    async with Client(relay.mesh_url) as a:
        await a.subscribe()
        b = Client(relay.mesh_url)
        await b.dial()
        await b.enter()
        await b.publish()
        await a.records(1)
        if how == "closes":
            await b.socket.close()
        else:
            b.socket.transport.abort()
        assert await a.expect(Gone) == Gone(b.key)
        await a.forward(b.key, b"sealed")
        assert await a.expect(Undelivered) == Undelivered(b.key, "absent")


# --- a node that does not read ------------------------------------------------------------


async def test_a_node_that_does_not_read_costs_only_itself() -> None:
    settings = RelaySettings(port=0, stun=False, queue_bytes=200_000, sweep_every=0.02)
    async with (
        Relay(settings) as relay,
        Client(relay.mesh_url) as fast,
        Client(relay.mesh_url) as other,
        Client(relay.mesh_url) as slow,
    ):
        await slow.hears(fast)
        await other.hears(fast)
        raw = slow.socket.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.socket.transport.pause_reading()
        while not relay.hub.counters.undelivered["full"]:
            await fast.forward(slow.key, bytes(64_000))
            await fast.forward(other.key, b"quick")
            assert await other.forwarded() == (fast.key, b"quick")
        assert await fast.expect(Undelivered) == Undelivered(slow.key, "full")
        waiting = [node.socket.buffered for node in relay.hub]
        assert sum(waiting) <= settings.queue_bytes
        assert sorted(waiting)[:2] == [0, 0]
        slow.socket.transport.abort()


async def test_a_node_that_does_not_read_is_cut_in_time() -> None:
    settings = RelaySettings(
        port=0, stun=False, queue_bytes=200_000, sweep_every=0.02, stall_timeout=0.1
    )
    async with Relay(settings) as relay, Client(relay.mesh_url) as fast:
        await fast.subscribe()
        slow = Client(relay.mesh_url)
        await slow.dial()
        await slow.enter()
        await slow.publish()
        await fast.records(1)
        slow.socket.transport.pause_reading()
        while not relay.hub.counters.undelivered["full"]:
            await fast.forward(slow.key, bytes(64_000))
            await fast.forward(fast.key, b"quick")
            message, _ = await fast.receive()
        while isinstance(message, Undelivered | Forwarded):
            message, _ = await fast.receive()
        assert message == Gone(slow.key)
        assert relay.hub.counters.refused == {"Stalled": 1}
        slow.socket.transport.abort()


async def test_a_node_that_sends_too_fast_is_slowed_and_loses_nothing() -> None:
    settings = RelaySettings(port=0, stun=False, messages_per_second=100)
    async with (
        Relay(settings) as relay,
        Client(relay.mesh_url) as a,
        Client(relay.mesh_url) as b,
    ):
        await b.hears(a)
        count = 150
        await asyncio.gather(*(a.forward(b.key, str(n).encode()) for n in range(count)))
        packets = [(await b.forwarded())[1] for _ in range(count)]
        assert packets == [str(n).encode() for n in range(count)]
        assert relay.hub.counters.throttled > 0


# --- the upgrade --------------------------------------------------------------------------


async def turned_away(url: str) -> int:
    with pytest.raises(InvalidStatus) as caught:
        await Client(url).dial()
    return caught.value.response.status_code


async def test_the_mesh_is_at_one_path(relay: Relay) -> None:
    for path in ("/", "/mesh/x", "/other"):
        assert await turned_away(f"ws://127.0.0.1:{relay.port}{path}") == 404
    async with Client(relay.mesh_url + "?tag=1"):
        assert len(relay.hub) == 1


async def test_the_mesh_is_no_page(relay: Relay) -> None:
    answer = await get(relay.url, "/mesh")
    assert answer.status == 426
    assert answer.headers["upgrade"] == "websocket"


async def test_a_broken_upgrade_is_refused(relay: Relay) -> None:
    answer = await get(relay.url, "/mesh", Connection="Upgrade", Upgrade="websocket")
    assert answer.status == 400
    assert relay.hub.entering == 0


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (RelaySettings(port=0, stun=False, max_connections=1), "Full"),
        (RelaySettings(port=0, stun=False, max_per_address=1), "TooManyFromOneAddress"),
    ],
)
async def test_too_many_connections_are_turned_away(settings: RelaySettings, reason: str) -> None:
    async with Relay(settings) as relay, Client(relay.mesh_url):
        assert await turned_away(relay.mesh_url) == 503
        assert relay.hub.counters.refused == {reason: 1}


async def test_too_many_half_open_connections_are_turned_away() -> None:
    settings = RelaySettings(port=0, stun=False, max_handshakes=1)
    async with Relay(settings) as relay:
        first = Client(relay.mesh_url)
        await first.dial()
        assert await turned_away(relay.mesh_url) == 503
        await first.enter()
        async with Client(relay.mesh_url):
            pass
        await first.socket.close()


async def test_behind_a_trusted_proxy_addresses_are_those_it_tells() -> None:
    settings = RelaySettings(
        port=0, stun=False, max_per_address=1, trusted_proxies=frozenset({"127.0.0.1"})
    )
    async with Relay(settings) as relay:
        nodes = [
            Client(relay.mesh_url, headers={"X-Forwarded-For": f"6.6.6.6, 192.0.2.{n}"})
            for n in (1, 2, 2)
        ]
        for node in nodes[:2]:
            await node.dial()
        with pytest.raises(InvalidStatus):
            await nodes[2].dial()
        for node in nodes[:2]:
            await node.expect(Challenge)
            await node.socket.close()


async def test_nobody_else_is_believed_about_addresses() -> None:
    settings = RelaySettings(port=0, stun=False, max_per_address=1)
    async with Relay(settings) as relay, Client(relay.mesh_url):
        with pytest.raises(InvalidStatus):
            await Client(relay.mesh_url, headers={"X-Forwarded-For": "192.0.2.1"}).dial()


# --- stopping -----------------------------------------------------------------------------


async def test_a_relay_that_stops_says_so_to_its_nodes() -> None:
    async with Relay(RelaySettings(port=0, stun=False)) as relay:
        node = Client(relay.mesh_url)
        await node.dial()
        await node.enter()
    await node.socket.wait_closed()
    assert node.socket.close_code == 1012
    assert len(relay.hub) == 0


async def test_a_relay_stops_although_a_node_does_not_answer() -> None:
    async with Relay(RelaySettings(port=0, stun=False)) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(
            b"GET /mesh HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert relay.hub.entering == 0


async def test_what_the_relay_knows_of_ice_is_told_on_entry() -> None:
    settings = RelaySettings(port=0, stun=False, ice_servers=("stun:stun.example:3478",))
    async with Relay(settings) as relay:
        node = Client(relay.mesh_url)
        await node.dial()
        await node.send(await node.hello((await node.expect(Challenge)).nonce))
        assert await node.expect(Welcome) == Welcome(["stun:stun.example:3478"])
        await node.socket.close()
