"""Strangers' addresses are dialled where that can hurt nobody."""

from __future__ import annotations

import pytest

from pyodide_node.errors import ConfigError
from relay_server.bridge.addresses import dialled, is_global, is_inside, peer_of

PEER = "12D3KooWM9AJoUg7cGki13K7UN74rrqV4JeXSUo6S5QW8RVLSRXH"
PUBLIC = ["/ip4/8.8.8.8/tcp/4001", "/ip6/2001:4860:4860::8888/tcp/1"]
PRIVATE = [
    "/ip4/127.0.0.1/tcp/1",
    "/ip4/10.0.0.1/tcp/1",
    "/ip4/169.254.169.254/tcp/80",
    "/ip6/::1/tcp/1",
    "/ip6/::ffff:10.0.0.1/tcp/1",
    "/ip6/fe80::1/tcp/1",
]
NONE = [
    "/dns4/localhost/tcp/1",
    "/ip4/8.8.8.8/udp/1/quic",
    f"/ip4/8.8.8.8/tcp/1/p2p/{PEER}/p2p-circuit",
    "/ip4/8.8.8.8.8/tcp/1",
    "/unix/tmp/x",
    "",
]


def test_from_the_internet_only_the_internet_is_dialled() -> None:
    assert dialled(PRIVATE + NONE + PUBLIC, inside=False) == PUBLIC


def test_in_a_private_network_its_addresses_are_too() -> None:
    assert dialled(PRIVATE[:2] + NONE[:3] + PUBLIC, inside=True) == PRIVATE[:2] + PUBLIC


@pytest.mark.parametrize(
    ("listen", "others", "inside"),
    [
        ("/ip4/127.0.0.1/tcp/1", [], True),
        ("/ip4/127.0.0.1/tcp/1", [f"/ip4/8.8.8.8/tcp/1/p2p/{PEER}"], False),
        ("/ip4/127.0.0.1/tcp/1", [f"/dns4/example.org/tcp/1/p2p/{PEER}"], False),
        ("/ip4/0.0.0.0/tcp/1", [f"/ip4/10.0.0.1/tcp/1/p2p/{PEER}"], True),
        ("/ip4/0.0.0.0/tcp/1", [], False),
        ("/ip6/::/tcp/1", [], False),
        ("/ip4/8.8.8.8/tcp/1", [], False),
    ],
)
def test_a_private_network_has_nothing_of_the_internet(
    listen: str, others: list[str], inside: bool
) -> None:
    assert is_inside(listen, others) is inside


def test_of_many_addresses_some_are_tried() -> None:
    assert len(dialled(PUBLIC * 50, inside=False)) == 8


def test_a_first_peer_is_named_with_its_id() -> None:
    assert peer_of(f"/ip4/1.2.3.4/tcp/31337/p2p/{PEER}") == PEER
    assert peer_of(f"/dns4/bootstrap.example.org/tcp/31337/p2p/{PEER}") == PEER
    assert is_global(f"/ip4/8.8.8.8/tcp/31337/p2p/{PEER}")


@pytest.mark.parametrize("wrong", ["", "1.2.3.4:5", "/ip4/1.2.3.4/tcp/1", f"/p2p/{PEER}"])
def test_a_first_peer_without_one_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="/p2p/ID"):
        peer_of(wrong)
