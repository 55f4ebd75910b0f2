"""Only who proves a key enters, at the relay it meant, on the connection it is on."""

from __future__ import annotations

import os

import pytest

from pyodide_node.hosts.crypto import SoftwareKeys
from pyodide_node.wire.messages import Challenge, Hello, Ping, Welcome, hello_bytes
from relay_server import Relay, RelaySettings
from relay_server.entry import check_hello, verify
from relay_server.refusal import Refusal
from tests.relay_server.client import Client

NONCE = bytes(range(32))


async def test_a_node_that_proves_its_key_is_welcome(relay: Relay) -> None:
    async with Client(relay.mesh_url) as node:
        assert len(relay.hub) == 1
        assert [known.key for known in relay.hub] == [node.key]
        assert relay.hub.entering == 0


async def test_every_connection_has_its_own_challenge(relay: Relay) -> None:
    nonces = set()
    for _ in range(3):
        node = Client(relay.mesh_url)
        await node.dial()
        nonces.add((await node.expect(Challenge)).nonce)
        await node.socket.close()
    assert len(nonces) == 3


async def test_a_bad_signature_is_refused(relay: Relay) -> None:
    node = Client(relay.mesh_url)
    await node.dial()
    await node.expect(Challenge)
    await node.send(await node.hello(bytes(32)))
    assert await node.refused() == ("BadSignature", 1008)
    assert len(relay.hub) == 0


async def test_a_hello_of_another_connection_is_refused(relay: Relay) -> None:
    node = Client(relay.mesh_url)
    await node.dial()
    hello = await node.hello((await node.expect(Challenge)).nonce)
    await node.send(hello)
    await node.expect(Welcome)
    thief = Client(relay.mesh_url)
    await thief.dial()
    await thief.expect(Challenge)
    await thief.send(hello)
    assert await thief.refused() == ("BadSignature", 1008)
    assert len(relay.hub) == 1
    await node.socket.close()


async def test_a_hello_meant_for_another_relay_is_refused(relay: Relay) -> None:
    node = Client(relay.mesh_url)
    await node.dial()
    challenge = await node.expect(Challenge)
    await node.send(await node.hello(challenge.nonce, "other.example"))
    assert await node.refused() == ("WrongAudience", 1008)


async def test_a_node_says_hello_before_anything_else(relay: Relay) -> None:
    node = Client(relay.mesh_url)
    await node.dial()
    await node.expect(Challenge)
    await node.send(Ping(1))
    assert await node.refused() == ("ProtocolError", 1002)


async def test_a_node_that_says_nothing_is_sent_away() -> None:
    settings = RelaySettings(port=0, stun=False, handshake_deadline=0.02, sweep_every=0.01)
    async with Relay(settings) as relay:
        node = Client(relay.mesh_url)
        await node.dial()
        await node.expect(Challenge)
        assert await node.refused() == ("HandshakeTimeout", 1008)
        assert relay.hub.entering == 0


async def test_before_it_enters_a_node_can_only_send_small_messages(relay: Relay) -> None:
    node = Client(relay.mesh_url)
    await node.dial()
    await node.expect(Challenge)
    await node.socket.send(bytes(1025))
    assert await node.refused() == ("ProtocolError", 1009)


async def test_the_newest_connection_of_a_key_stays(relay: Relay) -> None:
    async with Client(relay.mesh_url) as older:
        record = await older.publish()
        async with Client(relay.mesh_url, older.keys) as newer, Client(relay.mesh_url) as other:
            assert await older.refused() == ("Replaced", 1008)
            assert len(relay.hub) == 2
            await other.forward(older.key, b"sealed")
            assert await newer.forwarded() == (other.key, b"sealed")
            await other.subscribe()
            assert await other.records(1) == [record]


# --- names --------------------------------------------------------------------------------


async def hello(audience: str) -> Hello:
    keys = SoftwareKeys(os.urandom(32), os.urandom)
    return Hello(keys.public_key, audience, await keys.sign(hello_bytes(NONCE, audience)))


@pytest.mark.parametrize(
    ("audience", "host", "named"),
    [
        ("relay.example", "relay.example", ()),
        ("relay.example:8080", "relay.example:8080", ()),
        ("Relay.Example", "relay.example", ()),
        ("relay.example:443", "relay.example", ()),
        ("relay.example", "relay.example:80", ()),
        ("relay.example", "127.0.0.1:8080", ("relay.example",)),
        ("relay.example:8443", "127.0.0.1:8080", ("relay.example",)),
        ("relay.example:8443", "", ("a.example", "relay.example:8443")),
        ("[::1]:8080", "[::1]:8080", ()),
    ],
)
async def test_the_audience_is_a_name_of_this_relay(
    audience: str, host: str, named: tuple[str, ...]
) -> None:
    check_hello(await hello(audience), NONCE, host, frozenset(named))


@pytest.mark.parametrize(
    ("audience", "host", "named"),
    [
        ("relay.example", "other.example", ()),
        ("relay.example:8080", "relay.example:8081", ()),
        ("relay.example:8080", "relay.example", ()),
        ("evil.example", "evil.example", ("relay.example",)),
        ("relay.example:1", "", ("relay.example:2",)),
        ("xrelay.example", "", ("relay.example",)),
        ("", "relay.example", ()),
    ],
)
async def test_any_other_audience_is_refused(
    audience: str, host: str, named: tuple[str, ...]
) -> None:
    with pytest.raises(Refusal) as caught:
        check_hello(await hello(audience), NONCE, host, frozenset(named))
    assert caught.value.code == "WrongAudience"


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(32), b"\xff" * 32])
def test_what_is_no_key_signs_nothing(key: bytes) -> None:
    assert not verify(key, bytes(64), b"data")
    assert not verify(key, b"", b"data")
