"""The format on the wire does not drift: what was agreed on once is in golden.txt.

A change there is a change of `limits.VERSION`. To write the file anew, delete it and run this
test: it fails once, and leaves the new file behind.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pyodide_node.wire.frames import Frame, encode, fragments, parse
from pyodide_node.wire.messages import decode, to_frame
from pyodide_node.wire.records import Record, check_record, sign_record
from pyodide_node.wire.sealed import Offering, accept
from relay_server.entry import verify
from tests.wire.keys import keys_of
from tests.wire.test_messages import EXAMPLES

GOLDEN = Path(__file__).with_name("golden.txt")
NOW = 1_790_000_000


async def produced() -> dict[str, bytes]:
    """Bytes of everything that travels, by name."""
    alice, bob = keys_of("alice"), keys_of("bob")
    found = {
        type(message).__name__: encode(to_frame(message, b"tensor", stream=5, sequence=6))
        for message in EXAMPLES
    }
    whole = Frame(type=42, stream=1, sequence=2, body=b"body", payload=bytes(range(40)))
    for index, piece in enumerate(fragments(whole, 44)):
        found[f"fragment {index}"] = piece
    record = Record("announcement", alice.public_key, 7, NOW, NOW + 330, b"what it says")
    found["record"] = await sign_record(alice, record)
    offering = await Offering.begin(alice, bob.public_key, NOW)
    at_bob, answer = await accept(bob, alice.public_key, offering.packet, NOW, 0)
    at_alice = await offering.complete(answer)
    found["seal offer"], found["seal answer"] = offering.packet, answer
    found["sealed by offerer"] = await at_alice.seal(b"hello")
    found["sealed by answerer"] = await at_bob.seal(b"hello")
    return found


def golden() -> dict[str, bytes]:
    lines = GOLDEN.read_text().splitlines()
    return {name: bytes.fromhex(data) for name, _, data in (line.partition(": ") for line in lines)}


async def test_the_bytes_are_those_agreed_on() -> None:
    now = await produced()
    if not GOLDEN.exists():
        GOLDEN.write_text("".join(f"{name}: {data.hex()}\n" for name, data in now.items()))
        pytest.fail("golden.txt was written: look at it, and commit it with a new version")
    assert now == golden()


def test_the_bytes_agreed_on_are_understood() -> None:
    held = golden()
    for message in EXAMPLES:
        assert decode(parse(held[type(message).__name__])) == message
    assert check_record(verify, held["record"], NOW).body == b"what it says"
