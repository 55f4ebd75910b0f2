"""HTTP connections that keep a place and do nothing with it lose it, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay_server import Relay, RelaySettings
from relay_server.settings import HTTP_HEAD
from tests.relay_server.client import PATIENCE, Client
from tests.relay_server.http import get
from tests.relay_server.test_relay import self_signed

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
HOST_ONLY = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
async def hasty(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Relay]:
    """A relay with short deadlines."""
    monkeypatch.setattr("relay_server.gate.HTTP_WAIT", 0.3)
    async with Relay(RelaySettings(port=0, stun=False, sweep_every=0.02)) as relay:
        yield relay


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What still came before the relay closed the connection."""
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(ConnectionResetError):
            return await reader.read()
    return b""


async def trickle(writer: asyncio.StreamWriter) -> None:
    """Bytes of a header, one by one, for as long as somebody takes them."""
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("first", [b"", HOST_ONLY + b"X: ", GET + HOST_ONLY + b"X: "])
async def test_a_request_that_trickles_in_is_cut(hasty: Relay, first: bytes) -> None:
    async with Client(hasty.mesh_url) as node:  # whose own deadline ended with its upgrade
        reader, writer = await asyncio.open_connection("127.0.0.1", hasty.port)
        writer.write(first)
        if first.startswith(GET):
            await reader.readuntil(b"ok\n")
        dripping = asyncio.create_task(trickle(writer) if first else asyncio.sleep(0))
        assert await ended(reader) == b""
        dripping.cancel()
        writer.close()
        assert hasty.hub.counters.refused == {"Overdue": 1}
        await node.forward(node.key, b"still here")
        assert await node.forwarded() == (node.key, b"still here")
    assert len(hasty.hub.gate) == 0


async def test_a_body_for_nobody_is_not_read_to_its_end(relay: Relay) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    writer.write(b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nabc")
    assert b" 405 " in await ended(reader)
    writer.close()


async def test_a_download_that_nobody_takes_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay_server.gate.HTTP_WAIT", 0.3)
    (tmp_path / "big").write_bytes(bytes(20_000_000))
    settings = RelaySettings(port=0, stun=False, sweep_every=0.02, cdn=tmp_path)
    async with Relay(settings) as relay:
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(slow, ("127.0.0.1", relay.port))
            await loop.sock_sendall(slow, b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
            async with asyncio.timeout(PATIENCE):
                while not relay.hub.counters.refused["Overdue"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        assert (await get(relay.url, "/big")).status == 200


async def test_headers_are_bounded(relay: Relay) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    writer.write(HOST_ONLY + b"X: " + b"a" * (2 * HTTP_HEAD))
    assert b" 400 " in await ended(reader)
    writer.close()


async def test_connections_of_one_address_are_bounded() -> None:
    settings = RelaySettings(port=0, stun=False, max_http_per_address=3)
    async with Relay(settings) as relay:
        kept = [await asyncio.open_connection("127.0.0.1", relay.port) for _ in range(3)]
        for reader, writer in kept:
            writer.write(GET)
            await reader.readuntil(b"ok\n")
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        assert await ended(reader) == b""
        writer.close()
        elsewhere = await asyncio.open_connection(
            "127.0.0.1", relay.port, local_addr=("127.0.0.2", 0)
        )
        elsewhere[1].write(GET)
        await elsewhere[0].readuntil(b"ok\n")
        for _, writer in (*kept, elsewhere):
            writer.close()
        assert relay.hub.counters.refused == {"TooManyRequests": 1}


async def test_nodes_are_no_http_connections() -> None:
    settings = RelaySettings(port=0, stun=False, max_http=1)
    async with Relay(settings) as relay, Client(relay.mesh_url), Client(relay.mesh_url):
        assert len(relay.hub.gate) == 0
        assert (await get(relay.url, "/healthz")).status == 200


async def test_requests_of_one_address_are_slowed() -> None:
    settings = RelaySettings(port=0, stun=False, requests_per_address=20)
    async with Relay(settings) as relay:
        answers = await asyncio.gather(*(get(relay.url, "/healthz") for _ in range(210)))
        assert {answer.status for answer in answers} == {200}
        assert relay.hub.counters.throttled > 0


async def test_requests_far_over_the_rate_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay_server.guard.HTTP_PATIENCE", 0.25)
    settings = RelaySettings(port=0, stun=False, requests_per_address=1)
    async with Relay(settings) as relay:
        answers = await asyncio.gather(*(get(relay.url, "/healthz") for _ in range(20)))
        statuses = [answer.status for answer in answers]
        assert set(statuses) == {200, 429}
        assert statuses.count(200) >= 10
        refused = next(answer for answer in answers if answer.status == 429)
        assert refused.headers["retry-after"] == "10"


async def test_tls_handshakes_have_a_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyodide_node.wire.limits.HANDSHAKE_DEADLINE", 0.2)
    cert, key = self_signed(tmp_path)
    settings = RelaySettings(host="localhost", port=0, stun=False, tls_cert=cert, tls_key=key)
    async with Relay(settings) as relay:
        reader, writer = await asyncio.open_connection("localhost", relay.port)
        writer.write(b"\x16\x03\x01")
        assert await ended(reader) == b""
        writer.close()
