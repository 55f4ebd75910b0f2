"""What a relay says of itself. The body of a signed record of kind `KIND`; its key is the relay's
id, of which `mesh.peer.peer_id` makes the name that other relays dial it by.

Whoever is told of a relay dials it: an address is taken only if the outside world could be meant.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from pyodide_node.errors import RecordError
from pyodide_node.hosts.base import Keys
from pyodide_node.wire.malformed import MALFORMED
from pyodide_node.wire.messages import Url
from pyodide_node.wire.records import Record, sign_body

__all__ = [
    "KIND",
    "RelayInfo",
    "announce_relay",
    "decode_relay",
    "decode_relay_url",
    "dialable",
    "public",
]

KIND = "relay"


class RelayInfo(Struct, frozen=True, array_like=True):
    url: Url
    """What nodes dial, e.g. "wss://relay.example/mesh"."""
    addresses: Annotated[list[Url], Meta(max_length=8)] = []
    """What other relays dial, as multiaddrs without the peer id."""


_DECODER = msgspec.msgpack.Decoder(RelayInfo)


async def announce_relay(keys: Keys, info: RelayInfo, now: float) -> bytes:
    """The signed record of a relay, made now."""
    return await sign_body(keys, KIND, info, now)


def decode_relay(record: Record) -> RelayInfo:
    """Raises RecordError for another kind or what no node could dial."""
    if record.kind != KIND:
        raise RecordError(f"a record of kind {record.kind!r} is not a relay's")
    try:
        info = _DECODER.decode(record.body)
    except MALFORMED as error:
        raise RecordError(f"a malformed relay record: {error}") from None
    decode_relay_url(info.url)
    return info


def decode_relay_url(url: str) -> tuple[str, str]:
    """Scheme and host of what nodes dial. Raises RecordError when no node could."""
    target = _target(url)
    if target is None:
        raise RecordError("a relay's address must be wss://host/mesh", url=url[:64])
    return target


def dialable(url: str, beside: str) -> bool:
    """Whether a node that was told of `url` by the relay that it dialled as `beside` may dial it.

    Else a relay could send its nodes to doors inside their own networks: what is not public, or
    not wss, is taken only from a relay that is of the same kind itself.
    """
    target, told = _target(url), _target(beside)
    if target is None:
        return False
    if target[0] == "wss" and public(target[1]):
        return True
    return told is not None and target[0] == told[0] and _kind(target[1]) == _kind(told[1])


def public(host: str) -> bool:
    """Whether a host is anywhere in the world, by its name alone."""
    return _kind(host) == "public"


def _target(url: str) -> tuple[str, str] | None:
    """(scheme, host) of a relay's address; None when it is not one."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return None
    plain = not (parts.query or parts.fragment or parts.username or parts.password)
    if parts.scheme not in ("ws", "wss") or not host or not plain:
        return None
    return (parts.scheme, host) if parts.path.endswith("/mesh") else None


def _kind(host: str) -> str:
    host = host.removesuffix(".")
    if host == "localhost" or host.endswith(".localhost"):
        return "loopback"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a name; one without a dot means something at home only
        last = host.rpartition(".")[2]
        named = "." in host and last not in ("local", "internal", "home", "lan", "arpa")
        # "127.1" and "0x7f.1" are addresses to browsers.
        return "public" if named and not last[:1].isdigit() else "private"
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    if address.is_loopback:
        return "loopback"
    return "public" if address.is_global and not address.is_multicast else "private"
