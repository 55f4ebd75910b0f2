"""Records of relays, and which addresses a node that is told of them may dial."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyodide_node.errors import RecordError
from pyodide_node.wire.records import Record, check_record, sign_record
from pyodide_node.wire.relays import (
    KIND,
    RelayInfo,
    announce_relay,
    decode_relay,
    dialable,
    public,
)
from relay_server.entry import verify
from tests.wire.keys import keys_of

NOW = 1_790_000_000.5
INFO = RelayInfo("wss://relay.example/mesh", ["/dns4/relay.example/tcp/4001"])


def record(body: bytes, kind: str = KIND) -> Record:
    return Record(kind, keys_of("relay").public_key, 1, int(NOW), int(NOW) + 60, body)


async def test_what_a_relay_says_of_itself_comes_back() -> None:
    signed = await announce_relay(keys_of("relay"), INFO, NOW)
    found = check_record(verify, signed, NOW)
    assert found.public_key == keys_of("relay").public_key
    assert decode_relay(found) == INFO
    later = await announce_relay(keys_of("relay"), INFO, NOW + 1)
    assert check_record(verify, later, NOW + 1).number > found.number


async def test_addresses_longer_than_a_record_are_not_signed() -> None:
    body = msgspec.msgpack.encode(RelayInfo("wss://relay.example/mesh", ["/" * 256] * 8))
    with pytest.raises(RecordError, match="cannot be signed"):
        await sign_record(keys_of("relay"), record(body))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://relay.example/mesh",
        "wss://relay.example/",
        "wss://relay.example/mesh?to=1",
        "wss://relay.example/mesh#1",
        "wss://user:secret@relay.example/mesh",
        "wss:///mesh",
        "wss://relay.example:99999/mesh",
        "wss://[::1/mesh",
        "javascript:alert(1)//mesh",
    ],
)
def test_an_address_that_no_node_could_dial_is_refused(url: str) -> None:
    with pytest.raises(RecordError, match="address must be"):
        decode_relay(record(msgspec.msgpack.encode(RelayInfo(url))))
    assert not dialable(url, "wss://relay.example/mesh")


@given(st.binary(max_size=200))
def test_no_body_does_more_than_be_refused(body: bytes) -> None:
    try:
        decode_relay(record(body))
    except RecordError:
        return


def test_another_kind_is_refused() -> None:
    with pytest.raises(RecordError, match="not a relay's"):
        decode_relay(record(msgspec.msgpack.encode(INFO), kind="announcement"))


@pytest.mark.parametrize(
    ("host", "anywhere"),
    [
        ("relay.example", True),
        ("203.0.113.9", False),  # for documentation (RFC 5737)
        ("8.8.8.8", True),
        ("2001:4860:4860::8888", True),
        ("::ffff:8.8.8.8", True),
        ("::ffff:10.0.0.1", False),
        ("10.1.2.3", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("127.1", False),
        ("0x7f.1", False),
        ("2130706433", False),
        ("localhost", False),
        ("a.localhost", False),
        ("router", False),
        ("printer.local", False),
        ("metadata.internal", False),
        ("relay.example.", True),
        ("router.lan.", False),
        ("localhost.", False),
    ],
)
def test_what_is_public(host: str, anywhere: bool) -> None:
    assert public(host) is anywhere
    url = f"wss://[{host}]/mesh" if ":" in host else f"wss://{host}/mesh"
    assert dialable(url, "wss://other.example/mesh") is anywhere


@pytest.mark.parametrize(
    ("url", "beside", "may"),
    [
        ("ws://relay.example/mesh", "wss://other.example/mesh", False),
        ("ws://relay.example/mesh", "ws://other.example/mesh", True),
        ("ws://127.0.0.1:1/mesh", "ws://localhost:2/mesh", True),
        ("ws://127.0.0.1:1/mesh", "ws://10.0.0.1/mesh", False),
        ("ws://10.0.0.2/mesh", "ws://10.0.0.1/mesh", True),
        ("wss://10.0.0.2/mesh", "wss://relay.example/mesh", False),
        ("wss://relay.example/mesh", "ws://10.0.0.1/mesh", True),
        ("wss://10.0.0.2/mesh", "nothing", False),
    ],
)
def test_a_relay_leads_only_to_its_like(url: str, beside: str, may: bool) -> None:
    assert dialable(url, beside) is may
