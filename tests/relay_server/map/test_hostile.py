"""Whatever a viewer sends, it harms nobody but itself."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from relay_server.map.socket import MapSocket
from tests.relay_server.map.test_network import MapWorld

REQUEST = (
    b"GET /map/feed HTTP/1.1\r\nHost: relay.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class FakeTransport:
    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> Any:
        return ("192.0.2.1", 1)

    def close(self) -> None:
        self.closed = True

    abort = close


async def feed(chunks: list[bytes]) -> tuple[FakeTransport, MapWorld]:
    world = MapWorld()
    transport = FakeTransport()
    state = SimpleNamespace(connections=set())
    viewer = MapSocket(world.map, frozenset(), server_state=state)
    viewer.connection_made(transport)  # type: ignore[arg-type]
    for chunk in chunks:
        viewer.data_received(chunk)
    world.map.beat()
    counted = len(world.map.feed)
    viewer.connection_lost(None)
    assert len(world.map.feed) == 0
    assert counted <= 1
    assert not state.connections
    return transport, world


def frame(opcode: int, payload: bytes, fin: bool = True) -> bytes:
    """A client's frame, masked with zeros."""
    return bytes([fin << 7 | opcode, 0x80 | len(payload)]) + bytes(4) + payload


frames = st.builds(frame, st.integers(0, 15), st.binary(max_size=60), st.booleans())


@given(st.lists(st.binary(max_size=200) | frames, max_size=6))
def test_an_upgraded_viewer_may_send_anything(chunks: list[bytes]) -> None:
    transport, _ = asyncio.run(feed([REQUEST, *chunks]))
    assert transport.written.startswith(b"HTTP/1.1 101")


@given(st.lists(st.binary(max_size=200), max_size=4), st.integers(0, len(REQUEST) - 1))
def test_a_request_may_be_anything(chunks: list[bytes], cut: int) -> None:
    asyncio.run(feed([REQUEST[:cut], *chunks]))


def test_a_giant_message_is_not_waited_for() -> None:
    giant = bytes([0x82, 0xFF]) + (1 << 40).to_bytes(8, "big") + bytes(4)
    transport, _ = asyncio.run(feed([REQUEST, giant, bytes(1000)]))
    assert b"\x03\xf1" in transport.written[-200:]  # 1009, message too big
