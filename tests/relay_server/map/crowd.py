"""Any number of nodes at once, without a connection or a signature for each."""

from __future__ import annotations

import json
import random
from pathlib import Path

import msgspec

from pyodide_node.mesh.announcement import KIND, Announcement
from pyodide_node.wire.records import Record
from relay_server import Relay
from tests.relay_server.test_models import add

__all__ = ["crowd", "join", "manifest"]


def manifest(shelf: Path, name: str, blocks: int) -> None:
    """Offer a model of that many blocks; nobody need fetch it."""
    add(shelf, name, json.dumps({"blocks": blocks, "license": "MIT", "of": name}).encode())


def join(relay: Relay, key: bytes, said: Announcement, number: int = 0) -> None:
    """As if that node had announced this."""
    record = Record(KIND, key, number, 0, 2**40, msgspec.msgpack.encode(said))
    relay.hub.directory.admit(record, b"", 0)


def crowd(relay: Relay, count: int, model: bytes, blocks: int) -> list[bytes]:
    """Keys of `count` nodes that serve up to eight blocks each; the same ones in every run."""
    chance = random.Random(count)
    keys = [chance.randbytes(32) for _ in range(count)]
    for key in keys:
        first = chance.randrange(blocks)
        last = min(blocks, first + chance.randint(1, 8))
        engine, host = chance.choice(
            [("webgpu", "tab"), ("wasm", "tab"), ("onnxruntime", "native")]
        )
        speed = chance.uniform(1, 500)
        join(relay, key, Announcement(model, first, last, speed, engine, host, 0))
    return keys
