"""Whom a connection is from, and what counts as one address when connections are counted."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Collection, Sequence

from websockets.datastructures import Headers

__all__ = ["client_address", "forwarded_address", "is_loopback", "network_of"]


def forwarded_address(peer: str, forwarded: Sequence[str], trusted: Collection[str]) -> str:
    """Who asks: the peer, or whom its X-Forwarded-For names where the peer is a trusted proxy."""
    if forwarded and peer in trusted:
        # The last entry is the one that the trusted proxy itself wrote.
        return forwarded[-1].rpartition(",")[2].strip()
    return peer


def is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def network_of(address: str) -> str:
    """An IPv4 address as it is, the /64 of an IPv6 one: a host owns the whole of it."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed), 64), strict=False))


def client_address(transport: asyncio.Transport, headers: Headers, trusted: frozenset[str]) -> str:
    """The other end's address; behind a `trusted` proxy, the one that the proxy names."""
    peer = transport.get_extra_info("peername")
    address = str(peer[0]) if isinstance(peer, tuple) else ""
    return forwarded_address(address, headers.get_all("X-Forwarded-For"), trusted)
