"""The protocol's bytes: hivemind's own, and whatever else comes."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyodide_node.errors import ProtocolError, Unreachable
from relay_server.bridge import hivemind_pb2, limits, messages
from relay_server.bridge.messages import Find, Found, FoundAll, Item, Ping, Pong, Store, Stored

pb: Any = hivemind_pb2

CALL = bytes.fromhex(
    "0a10020202020202020202020202020202021a5a0a2603030303030303030303030303030303030303030303030303"
    "03030303030303030303030303121444485450726f746f636f6c2e7270635f70696e671a1a12160a14010101010101"
    "01010101010101010101010101011801"
)
"""By hivemind 1.1.12: its rpc_ping with `validate`."""
REFUSAL = bytes.fromhex("0a1002020202020202020202020202020202220412026e6f")

KEYS = st.binary(min_size=limits.KEY, max_size=limits.KEY)
NODES = st.none() | KEYS.filter(any)
TIMES = st.floats(allow_nan=False, allow_infinity=False)
ITEMS = st.builds(Item, KEYS, st.binary(max_size=9), st.binary(max_size=99), TIMES)
NEAR = st.lists(st.tuples(KEYS, st.binary(min_size=1, max_size=limits.PEER_ID)), max_size=5)
NOTHING = st.builds(Found, near=NEAR)
HELD = st.builds(
    Found, value=st.binary(max_size=99), dictionary=st.booleans(), expires=TIMES, near=NEAR
)
MESSAGES = st.one_of(
    st.builds(Ping, node=NODES, validate=st.booleans()),
    st.builds(Pong, node=NODES, time=TIMES, available=st.booleans()),
    st.builds(Store, items=st.lists(ITEMS, max_size=5), node=NODES),
    st.builds(Stored, ok=st.lists(st.booleans(), max_size=5), node=NODES),
    st.builds(Find, keys=st.lists(KEYS, max_size=5), node=NODES),
    st.builds(FoundAll, results=st.lists(NOTHING | HELD, max_size=5), node=NODES),
)
READERS = [Ping.unpack, Pong.unpack, Store.unpack, Stored.unpack, Find.unpack, FoundAll.unpack]


@given(MESSAGES)
def test_a_message_comes_back_as_it_was(
    message: Ping | Pong | Store | Stored | Find | FoundAll,
) -> None:
    assert type(message).unpack(message.pack()) == message


@given(st.binary(max_size=16), st.binary(max_size=99))
def test_a_call_and_its_answer_come_back(id: bytes, data: bytes) -> None:
    call = messages.unpack_call(messages.pack_call(id, b"peer", "rpc_find", data))
    assert (call.id, call.data) == (id, data)
    assert messages.unpack_answer(messages.pack_answer(id, data), id) == data


def test_hiveminds_own_call_is_read_and_made() -> None:
    call = messages.unpack_call(CALL)
    assert Ping.unpack(call.data) == Ping(node=b"\1" * 20, validate=True)
    assert messages.pack_call(b"\2" * 16, b"\3" * 38, "rpc_ping", call.data) == CALL


def test_hiveminds_own_refusal_is_read_and_made() -> None:
    assert messages.pack_refusal(b"\2" * 16, "no") == REFUSAL
    with pytest.raises(Unreachable, match="refused the call: no"):
        messages.unpack_answer(REFUSAL, b"\2" * 16)


def test_an_answer_to_another_call_is_none() -> None:
    with pytest.raises(ProtocolError, match="another question"):
        messages.unpack_answer(messages.pack_answer(b"1", b""), b"2")


def test_an_envelope_without_a_call_is_refused() -> None:
    with pytest.raises(ProtocolError, match="something else"):
        messages.unpack_call(messages.pack_answer(b"1", b""))
    with pytest.raises(ProtocolError, match="no daemon makes"):
        messages.unpack_call(messages.pack_call(bytes(65), b"", "rpc_ping", b""))


@given(st.sampled_from(READERS), st.binary(max_size=300))
def test_garbage_is_refused_or_read(read: Any, data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        read(data)


@given(st.binary(max_size=300))
def test_garbage_is_no_call(data: bytes) -> None:
    for read in (messages.unpack_call, lambda raw: messages.unpack_answer(raw, b"")):
        try:
            read(data)
        except (ProtocolError, Unreachable):
            continue


@pytest.mark.parametrize(
    ("read", "message", "problem"),
    [
        (Find.unpack, pb.FindRequest(keys=[bytes(20)] * (limits.FIND_KEYS + 1)), "at most 512"),
        (Find.unpack, pb.FindRequest(keys=[b"short"]), "a key of 5 bytes"),
        (Find.unpack, pb.FindRequest(node=pb.Node(id=bytes(21))), "a key of 21 bytes"),
        (Stored.unpack, pb.StoreAnswer(stored=[True] * (limits.STORE_KEYS + 1)), "at most 1024"),
        (FoundAll.unpack, pb.FindAnswer(results=[pb.Found()] * 600), "at most 512"),
        (Store.unpack, pb.StoreRequest(keys=[bytes(20)]), "differ in number"),
        (
            Store.unpack,
            pb.StoreRequest(
                keys=[bytes(20)] * 1025,
                subkeys=[b""] * 1025,
                values=[b""] * 1025,
                expires=[0.0] * 1025,
                cached=[False] * 1025,
            ),
            "at most 1024",
        ),
        (
            FoundAll.unpack,
            pb.FindAnswer(results=[pb.Found(near_ids=[bytes(20)])]),
            "differ in number",
        ),
        (
            FoundAll.unpack,
            pb.FindAnswer(results=[pb.Found(near_ids=[bytes(20)], near_peers=[bytes(65)])]),
            "impossible id",
        ),
    ],
)
def test_counts_and_lengths_are_held(read: Any, message: Any, problem: str) -> None:
    with pytest.raises(ProtocolError, match=problem):
        read(message.SerializeToString())


def test_of_many_nearer_peers_a_bucket_is_read() -> None:
    found = pb.Found(near_ids=[bytes(20)] * 500, near_peers=[b"peer"] * 500)
    (read,) = FoundAll.unpack(pb.FindAnswer(results=[found]).SerializeToString()).results
    assert len(read.near) == limits.BUCKET


def test_a_message_has_its_size() -> None:
    with pytest.raises(ProtocolError, match="at most"):
        Find.unpack(bytes(limits.MESSAGE + 1))
