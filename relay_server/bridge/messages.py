"""hivemind's DHTProtocol, checked on the way in: bytes to structs and back. Sans-IO.

Only this file knows protobuf. Every function that reads raises ProtocolError.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from google.protobuf.message import DecodeError

from pyodide_node.errors import ProtocolError, Unreachable
from relay_server.bridge import hivemind_pb2, limits

__all__ = [
    "METHODS",
    "Call",
    "Find",
    "Found",
    "FoundAll",
    "Item",
    "Method",
    "Ping",
    "Pong",
    "Store",
    "Stored",
    "pack_answer",
    "pack_call",
    "pack_refusal",
    "protocol_of",
    "unpack_answer",
    "unpack_call",
]

Method = Literal["rpc_ping", "rpc_store", "rpc_find"]
METHODS: Final[tuple[Method, ...]] = ("rpc_ping", "rpc_store", "rpc_find")
Near = tuple[bytes, bytes]
"""Node id and peer id."""

_ERROR: Final = 300
"""Characters of a refusal that are worth repeating."""

pb: Any = hivemind_pb2  # protoc makes the names when it is imported


def protocol_of(method: Method) -> str:
    """libp2p's protocol id of a method; hivemind's has no leading slash."""
    return f"DHTProtocol.{method}"


# --- the envelope -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    id: bytes
    data: bytes


def pack_call(id: bytes, peer: bytes, method: Method, data: bytes) -> bytes:
    call = pb.Call(peer=peer, method=protocol_of(method), data=data)
    return _bytes(pb.Envelope(call_id=id, call=call))


def unpack_call(raw: bytes) -> Call:
    envelope = _parse(pb.Envelope, raw)
    if not envelope.HasField("call"):
        raise ProtocolError("a peer opened a call and sent something else")
    if len(envelope.call_id) > limits.PEER_ID:
        raise ProtocolError("a call has an id that no daemon makes")
    return Call(envelope.call_id, envelope.call.data)


def pack_answer(id: bytes, data: bytes) -> bytes:
    return _bytes(pb.Envelope(call_id=id, answer=pb.Answer(data=data)))


def pack_refusal(id: bytes, reason: str) -> bytes:
    """The caller's daemon hands `reason` to who called."""
    return _bytes(pb.Envelope(call_id=id, answer=pb.Answer(error=reason.encode())))


def unpack_answer(raw: bytes, id: bytes) -> bytes:
    """The answer to call `id`. Raises Unreachable when the peer refused it."""
    envelope = _parse(pb.Envelope, raw)
    kind = envelope.answer.WhichOneof("result")
    if envelope.call_id != id or kind is None:
        raise ProtocolError("a peer answered another question")
    if kind == "error":
        said = envelope.answer.error.decode(errors="replace")[:_ERROR]
        raise Unreachable(f"a peer refused the call: {said}")
    data: bytes = envelope.answer.data
    return data


# --- requests and answers -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    node: bytes | None = None
    """The sender's id; None of one that only asks."""
    validate: bool = False
    """Whether to ping back."""

    def pack(self) -> bytes:
        return _bytes(pb.PingRequest(node=_node(self.node), validate=self.validate))

    @classmethod
    def unpack(cls, raw: bytes) -> Ping:
        got = _parse(pb.PingRequest, raw)
        return cls(node=_node_of(got), validate=got.validate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pong:
    node: bytes | None = None
    time: float
    """Seconds since 1970, by the answerer's clock."""
    available: bool = False

    def pack(self) -> bytes:
        return _bytes(
            pb.PingAnswer(node=_node(self.node), time=self.time, available=self.available)
        )

    @classmethod
    def unpack(cls, raw: bytes) -> Pong:
        got = _parse(pb.PingAnswer, raw)
        return cls(node=_node_of(got), time=got.time, available=got.available)


@dataclass(frozen=True, slots=True)
class Item:
    """One record as it travels; `subkey` may be REGULAR or DICTIONARY."""

    key: bytes
    subkey: bytes
    value: bytes
    expires: float
    """Seconds since 1970; whoever keeps it checks that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    items: Sequence[Item]
    node: bytes | None = None

    def pack(self) -> bytes:
        return _bytes(
            pb.StoreRequest(
                keys=[item.key for item in self.items],
                subkeys=[item.subkey for item in self.items],
                values=[item.value for item in self.items],
                expires=[item.expires for item in self.items],
                cached=[False] * len(self.items),
                node=_node(self.node),
            )
        )

    @classmethod
    def unpack(cls, raw: bytes) -> Store:
        got = _parse(pb.StoreRequest, raw)
        lists = (got.keys, got.subkeys, got.values, got.expires, got.cached)
        if len({len(one) for one in lists}) != 1:
            raise ProtocolError("keys, subkeys, values and expirations differ in number")
        _at_most(len(got.keys), limits.STORE_KEYS, "records")
        items = [
            Item(_key(key), subkey, value, expires)
            for key, subkey, value, expires in zip(
                got.keys, got.subkeys, got.values, got.expires, strict=True
            )
        ]
        return cls(items=items, node=_node_of(got))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    ok: Sequence[bool]
    """Of each item, whether it was taken: it is new, and allowed."""
    node: bytes | None = None

    def pack(self) -> bytes:
        return _bytes(pb.StoreAnswer(stored=self.ok, node=_node(self.node)))

    @classmethod
    def unpack(cls, raw: bytes) -> Stored:
        got = _parse(pb.StoreAnswer, raw)
        _at_most(len(got.stored), limits.STORE_KEYS, "answers")
        return cls(ok=list(got.stored), node=_node_of(got))


@dataclass(frozen=True, slots=True, kw_only=True)
class Find:
    keys: Sequence[bytes]
    node: bytes | None = None

    def pack(self) -> bytes:
        return _bytes(pb.FindRequest(keys=self.keys, node=_node(self.node)))

    @classmethod
    def unpack(cls, raw: bytes) -> Find:
        got = _parse(pb.FindRequest, raw)
        _at_most(len(got.keys), limits.FIND_KEYS, "keys")
        return cls(keys=[_key(key) for key in got.keys], node=_node_of(got))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    value: bytes | None = None
    """In msgpack; None when nothing is held under the key."""
    dictionary: bool = False
    """Whether the value is a dictionary of subkeys."""
    expires: float = 0.0
    near: Sequence[Near] = ()
    """Peers nearer to the key, nearest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundAll:
    results: Sequence[Found] = field(default_factory=list)
    node: bytes | None = None

    def pack(self) -> bytes:
        return _bytes(
            pb.FindAnswer(results=[_found(one) for one in self.results], node=_node(self.node))
        )

    @classmethod
    def unpack(cls, raw: bytes) -> FoundAll:
        got = _parse(pb.FindAnswer, raw)
        _at_most(len(got.results), limits.FIND_KEYS, "results")
        return cls(results=[_found_of(one) for one in got.results], node=_node_of(got))


def _found(one: Found) -> Any:
    kind = pb.NOTHING if one.value is None else pb.DICTIONARY if one.dictionary else pb.VALUE
    return pb.Found(
        kind=kind,
        value=one.value or b"",
        expires=one.expires,
        near_ids=[node for node, _ in one.near],
        near_peers=[peer for _, peer in one.near],
    )


def _found_of(got: Any) -> Found:
    if len(got.near_ids) != len(got.near_peers):
        raise ProtocolError("ids of nodes and of peers differ in number")
    # Of more than a bucket's peers the nearest are enough.
    near = list(zip(got.near_ids, got.near_peers, strict=True))[: limits.BUCKET]
    for node, peer in near:
        if len(node) > limits.KEY or not 0 < len(peer) <= limits.PEER_ID:
            raise ProtocolError("a peer tells of one with an impossible id")
    held = got.kind in (pb.VALUE, pb.DICTIONARY)
    return Found(
        value=got.value if held else None,
        dictionary=got.kind == pb.DICTIONARY,
        expires=got.expires if math.isfinite(got.expires) else 0.0,
        near=[(node.rjust(limits.KEY, b"\0"), peer) for node, peer in near],
    )


def _parse(kind: Callable[[], Any], raw: bytes) -> Any:
    if len(raw) > limits.MESSAGE:
        raise ProtocolError(f"a message of {len(raw)} bytes; at most {limits.MESSAGE}")
    message = kind()
    try:
        message.ParseFromString(raw)
    except DecodeError as error:
        raise ProtocolError(f"a malformed message: {error}") from None
    return message


def _bytes(message: Any) -> bytes:
    raw: bytes = message.SerializeToString()
    return raw


def _at_most(count: int, limit: int, what: str) -> None:
    if count > limit:
        raise ProtocolError(f"{count} {what} in one message; send at most {limit}")


def _key(key: bytes) -> bytes:
    if len(key) != limits.KEY:
        raise ProtocolError(f"a key of {len(key)} bytes; keys are SHA-1 and have {limits.KEY}")
    return key


def _node(id: bytes | None) -> Any:
    return pb.Node(id=id or b"")


def _node_of(message: Any) -> bytes | None:
    id: bytes = message.node.id
    if not id:
        return None
    return _key(id)
