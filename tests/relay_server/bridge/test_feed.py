"""The relay's map is read as far as the bridge needs it, and checked."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest

from pyodide_node.errors import ManifestError, Unreachable
from relay_server.bridge.feed import Served, parse_map, read_map
from relay_server.relay import Relay
from relay_server.settings import RelaySettings

ID = "ab" * 32


def told(**change: Any) -> bytes:
    model = {"id": ID, "name": "m", "blocks": [1, 0], "rates": [2.5, 0.0], "more": 1} | change
    return json.dumps({"format": 1, "models": [model]}).encode()


def test_a_model_with_a_served_block_is_taken() -> None:
    assert parse_map(told(), 5) == [Served(ID, "m", [1, 0], [2.5, 0.0])]
    assert parse_map(told(blocks=[0, 0]), 5) == []
    assert parse_map(told(), 0) == []


@pytest.mark.parametrize(
    ("nodes", "runs"),
    [([1, 2, 3], [(0, 3)]), ([0, 1, 0, 1, 1], [(1, 2), (3, 5)]), ([0], []), ([], [])],
)
def test_served_blocks_are_runs(nodes: list[int], runs: list[tuple[int, int]]) -> None:
    assert Served(ID, "", nodes, [0.0] * len(nodes)).runs() == runs


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        told(id="../x"),
        told(rates=[1.0]),
        told(rates=[-1.0, 0.0]),
        told(rates=[1e300, 0.0]),
        told(blocks=[1] * 1025, rates=[1.0] * 1025),
        told(name="x" * 201),
    ],
)
def test_a_map_that_makes_no_sense_is_refused(data: bytes) -> None:
    with pytest.raises(ManifestError, match="map"):
        parse_map(data, 5)


async def test_a_relays_own_map_is_read() -> None:
    async with Relay(RelaySettings(port=0, stun=False)) as relay:
        assert await asyncio.to_thread(read_map, relay.url, 5) == []


def test_a_relay_that_is_not_there_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unreachable):
            read_map(url, 5)
