"""A STUN server (RFC 8489): tells a node which address the world sees it at.

It answers Binding requests and nothing else, with one attribute: 32 bytes for IPv4, 44 for IPv6,
to requests of at least 20. As an amplifier it is worth nobody's while.
"""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from typing import Any, Final, cast

from relay_server.counters import Counters

__all__ = ["StunServer", "binding_response"]

_COOKIE: Final = 0x2112A442
_REQUEST, _SUCCESS = 0x0001, 0x0101
_XOR_MAPPED_ADDRESS: Final = 0x0020
_HEADER = struct.Struct(">HHI12s")


def binding_response(data: bytes, host: str, port: int) -> bytes | None:
    """The answer to a Binding request from this address; None for anything else."""
    if len(data) < _HEADER.size:
        return None
    kind, length, cookie, transaction = _HEADER.unpack_from(data)
    if kind != _REQUEST or cookie != _COOKIE or length % 4 or length != len(data) - _HEADER.size:
        return None
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    mask = struct.pack(">I12s", _COOKIE, transaction)[: len(address.packed)]
    hidden = bytes(a ^ b for a, b in zip(address.packed, mask, strict=True))
    family = 1 if address.version == 4 else 2
    value = struct.pack(">BBH", 0, family, port ^ (_COOKIE >> 16)) + hidden
    attribute = struct.pack(">HH", _XOR_MAPPED_ADDRESS, len(value)) + value
    return _HEADER.pack(_SUCCESS, len(attribute), _COOKIE, transaction) + attribute


class StunServer(asyncio.DatagramProtocol):
    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        answer = binding_response(data, str(addr[0]), int(addr[1]))
        if answer is not None and self._transport is not None:
            self._counters.stun_answers += 1
            self._transport.sendto(answer, addr)
