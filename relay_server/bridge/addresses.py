"""Which addresses of strangers the bridge dials. Sans-IO; addresses are libp2p's multiaddrs."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

from pyodide_node.errors import ConfigError

__all__ = ["ADDRESS", "INTERNAL", "dialled", "is_global", "is_inside", "peer_of"]

_TCP: Final = re.compile(r"/ip[46]/([0-9a-fA-F:.]+)/tcp/([0-9]{1,5})(?:/p2p/([1-9A-HJ-NP-Za-z]+))?")
_PEER: Final = re.compile(r"/p2p/([1-9A-HJ-NP-Za-z]{32,64})")
ADDRESS: Final = re.compile(r"/(?:ip[46]|dns[46]?)/[^/\s]+/tcp/[0-9]{1,5}")
"""What a node may be dialled at, without its id."""
INTERNAL: Final = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/3",
    "::/127",
    "::ffff:0:0/96",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
)
"""Networks that are nobody's on the Internet."""
_MOST: Final = 8
"""Addresses of one peer that are tried."""


def peer_of(bootstrap: str) -> str:
    """The peer id in the address of a first peer. Raises ConfigError."""
    place = ADDRESS.match(bootstrap)
    found = _PEER.fullmatch(bootstrap, place.end()) if place else None
    if found is None:
        raise ConfigError(
            f"{bootstrap!r} names no peer; write it as /ip4/ADDRESS/tcp/PORT/p2p/ID",
            setting="bootstraps",
        )
    return found[1]


def is_global(address: str) -> bool:
    """Whether an address is one of the Internet's; false of names and what is no TCP address."""
    found = _TCP.fullmatch(address)
    try:
        ip = ipaddress.ip_address(found[1]) if found else None
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return ip is not None and (mapped or ip).is_global


def is_inside(listen: str, others: Iterable[str]) -> bool:
    """Whether a DHT is one of a private network: of all addresses that the operator named none is
    of the Internet. A name may be anything, and whoever listens everywhere is met by anybody."""
    named = list(others)
    if any(is_global(one) or one.startswith("/dns") for one in named):
        return False
    everywhere = listen.startswith(("/ip4/0.0.0.0/", "/ip6/::/"))
    return bool(named) or not (everywhere or is_global(listen))


def dialled(told: Iterable[str], inside: bool) -> list[str]:
    """Those of a peer's addresses that are dialled: TCP at an IP address, no names, no relays.

    `inside`: whether the DHT is one of a private network. Otherwise nobody can make the bridge
    knock on doors of the operator's own network.
    """
    fit = [one for one in told if is_global(one) or (inside and _TCP.fullmatch(one))]
    return fit[:_MOST]
