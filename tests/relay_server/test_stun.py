"""STUN answers with the address it sees; aioice, which we did not write, asks."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest
from aioice import stun
from hypothesis import given
from hypothesis import strategies as st

from pyodide_node.errors import ConfigError
from relay_server import Relay, RelaySettings
from relay_server.stun import binding_response
from tests.relay_server.client import PATIENCE, Client


class Asker(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.answers: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self.answers.put_nowait(data)


def request(**attributes: object) -> bytes:
    return bytes(
        stun.Message(
            message_method=stun.Method.BINDING,
            message_class=stun.Class.REQUEST,
            attributes={name.replace("_", "-"): value for name, value in attributes.items()},
        )
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_node_learns_its_address(host: str) -> None:
    async with Relay(RelaySettings(host=host, port=0)) as relay:
        loop = asyncio.get_running_loop()
        transport, asker = await loop.create_datagram_endpoint(
            Asker, remote_addr=(host, relay.port)
        )
        transport.sendto(b"not stun at all")
        asked = request(SOFTWARE="a test")
        transport.sendto(asked)
        async with asyncio.timeout(PATIENCE):
            data = await asker.answers.get()
        answer = stun.parse_message(data)
        assert answer.message_class is stun.Class.RESPONSE
        assert answer.message_method is stun.Method.BINDING
        assert answer.transaction_id == asked[8:20]
        name = transport.get_extra_info("sockname")[:2]
        assert answer.attributes == {"XOR-MAPPED-ADDRESS": name}
        assert asker.answers.empty()
        assert relay.hub.counters.stun_answers == 1
        transport.close()


async def test_a_node_is_told_where_to_ask() -> None:
    async with Relay(RelaySettings(port=0)) as relay, Client(relay.mesh_url) as node:
        assert node.ice_servers == [f"stun:127.0.0.1:{relay.port}"]
    six = RelaySettings(host="::1", port=0)
    async with Relay(six) as relay, Client(relay.mesh_url) as node:
        assert node.ice_servers == [f"stun:[::1]:{relay.port}"]


async def test_a_relay_without_stun_names_none(relay: Relay) -> None:
    async with Client(relay.mesh_url) as node:
        assert node.ice_servers == []


async def test_a_taken_udp_port_is_said_so() -> None:
    async with Relay(RelaySettings(port=0)) as first:
        taken = first.port
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", taken)
    )
    with pytest.raises(ConfigError, match="--no-stun"):
        await Relay(RelaySettings(port=taken)).__aenter__()
    transport.close()


def test_answers_are_small_whatever_was_asked() -> None:
    asked = request(SOFTWARE="x" * 500)
    answer = binding_response(asked, "192.0.2.1", 1234)
    assert answer is not None
    assert len(answer) == 32
    answer = binding_response(asked, "2001:db8::1%eth0", 1234)
    assert answer is not None
    assert len(answer) == 44


def test_an_ipv4_address_on_an_ipv6_socket_is_ipv4() -> None:
    answer = binding_response(request(), "::ffff:192.0.2.1", 1234)
    assert answer is not None
    assert stun.parse_message(answer).attributes["XOR-MAPPED-ADDRESS"] == ("192.0.2.1", 1234)


@pytest.mark.parametrize(
    "method",
    [method for method in stun.Method if method is not stun.Method.BINDING],
)
def test_only_binding_requests_are_answered(method: stun.Method) -> None:
    asked = bytes(stun.Message(message_method=method, message_class=stun.Class.REQUEST))
    assert binding_response(asked, "192.0.2.1", 1) is None


@pytest.mark.parametrize("kind", [stun.Class.INDICATION, stun.Class.RESPONSE, stun.Class.ERROR])
def test_answers_are_not_answered(kind: stun.Class) -> None:
    asked = bytes(stun.Message(message_method=stun.Method.BINDING, message_class=kind))
    assert binding_response(asked, "192.0.2.1", 1) is None


@given(st.binary(max_size=100))
def test_junk_is_not_answered(data: bytes) -> None:
    assert binding_response(data, "192.0.2.1", 1) is None
    asked = request()
    assert binding_response(asked + data, "192.0.2.1", 1) is None or data == b""
    assert binding_response(asked[: len(data)], "192.0.2.1", 1) is None or len(data) >= 20


def test_a_length_that_does_not_fit_is_not_answered() -> None:
    asked = bytearray(request())
    struct.pack_into(">H", asked, 2, 4)
    assert binding_response(bytes(asked), "192.0.2.1", 1) is None
