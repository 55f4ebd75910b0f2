"""Sealed sessions: two nodes talk through a relay that cannot read or change a word.

Two signed messages agree on keys, in the manner of SIGMA (Krawczyk 2003): each side signs its
ephemeral X25519 key together with both identities; the answer also covers the offer's hash.
AES-256-GCM keys, one for each direction, come from HKDF-SHA-256 salted with the transcript.
Fresh ephemerals give forward secrecy.

A packet is one byte of kind and the rest::

    1 offer   signature(64) || msgpack [from, to, ephemeral, time]
    2 answer  signature(64) || msgpack [from, to, ephemeral, sha256(offer)]
    3 data    counter u64 || AES-GCM ciphertext; the nonce is four zero bytes and the counter
    4 reset   nothing: the sender knows of no session; unauthenticated, so only a hint
"""

from __future__ import annotations

import hashlib
import struct
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from pyodide_node.errors import SealError
from pyodide_node.hosts.base import Agreement, Buffer, Cipher, Keys
from pyodide_node.wire import limits
from pyodide_node.wire.malformed import MALFORMED

__all__ = ["RESET", "Offering", "SealedSession", "accept", "is_answer", "is_data", "is_offer"]

_OFFER, _ANSWER, _DATA, _RESET = 1, 2, 3, 4
RESET = bytes([_RESET])
_CONTEXT = b"kwaainet/seal/1\0"
_INFOS = (b"kwaainet/seal/1 offerer", b"kwaainet/seal/1 answerer")
_COUNTER = struct.Struct(">BQ")

_Key = Annotated[bytes, Meta(min_length=32, max_length=32)]


class _Offer(Struct, frozen=True, array_like=True):
    sender: _Key
    to: _Key
    ephemeral: _Key
    time: Annotated[int, Meta(ge=0, lt=2**53)]
    """Milliseconds since 1970: a relay that replays an old offer is refused."""


class _Answer(Struct, frozen=True, array_like=True):
    sender: _Key
    to: _Key
    ephemeral: _Key
    offer: _Key


_T = TypeVar("_T", _Offer, _Answer)


def is_offer(packet: Buffer) -> bool:
    return packet[:1] == bytes([_OFFER])


def is_answer(packet: Buffer) -> bool:
    return packet[:1] == bytes([_ANSWER])


def is_data(packet: Buffer) -> bool:
    return packet[:1] == bytes([_DATA])


def _nonce(head: bytes) -> bytes:
    return bytes(4) + head[1:]


class SealedSession:
    """Both directions of an agreed session. `seal` and `open` must each be awaited in turn."""

    def __init__(self, sending: Cipher, receiving: Cipher, offered: int) -> None:
        self._sending = sending
        self._receiving = receiving
        self._sent = 0
        self._received = 0
        self.offered = offered
        """Time of the offer, ms: of two sessions the newer offer's is the one in use."""

    async def seal(self, data: Buffer) -> bytes:
        """The data packet for one frame."""
        self._sent += 1
        head = _COUNTER.pack(_DATA, self._sent)
        return head + await self._sending.seal(_nonce(head), data, head)

    async def open(self, packet: Buffer) -> bytes:
        """The frame in a data packet. Raises SealError; the session stays usable."""
        if len(packet) < _COUNTER.size:
            raise SealError("a sealed packet is too short", size=len(packet))
        kind, counter = _COUNTER.unpack_from(packet)
        if kind != _DATA or counter <= self._received:
            raise SealError("a sealed packet was repeated or reordered", counter=counter)
        view = memoryview(packet)
        head = bytes(view[: _COUNTER.size])
        opened = await self._receiving.open(_nonce(head), view[_COUNTER.size :], head)
        self._received = counter
        return opened


class Offering:
    """An offer that waits for its answer."""

    def __init__(
        self, keys: Keys, peer: bytes, agreement: Agreement, packet: bytes, offer: _Offer
    ) -> None:
        self._keys = keys
        self._peer = peer
        self._agreement = agreement
        self._offer = offer
        self.packet = packet

    @property
    def time(self) -> int:
        return self._offer.time

    @classmethod
    async def begin(cls, keys: Keys, peer: bytes, now: float) -> Offering:
        agreement = await keys.agreement()
        offer = _Offer(keys.public_key, peer, agreement.public_key, int(now * 1000))
        return cls(keys, peer, agreement, await _signed(keys, _OFFER, offer), offer)

    async def complete(self, packet: Buffer) -> SealedSession:
        """The session that this answer agrees on. Raises SealError."""
        answer = await _verified(self._keys, packet, _Answer, self._peer)
        if answer.offer != hashlib.sha256(self.packet).digest():
            raise SealError("an answer belongs to another offer")
        salt = hashlib.sha256(self.packet + bytes(packet)).digest()
        mine, theirs = await self._agreement.derive(answer.ephemeral, salt, _INFOS)
        return SealedSession(mine, theirs, self._offer.time)


async def accept(
    keys: Keys, peer: bytes, packet: Buffer, now: float, newest: int
) -> tuple[SealedSession, bytes]:
    """Answer an offer of `peer`: the session, and the packet to send back.

    `newest` is the time of the last offer seen from that peer; an older one is a replay.
    Raises SealError.
    """
    offer = await _verified(keys, packet, _Offer, peer)
    if offer.time <= newest or abs(offer.time / 1000 - now) > limits.CLOCK_SKEW:
        raise SealError("an offer is old or from a clock that is off", time=offer.time)
    agreement = await keys.agreement()
    digest = hashlib.sha256(bytes(packet)).digest()
    answer = await _signed(
        keys, _ANSWER, _Answer(keys.public_key, peer, agreement.public_key, digest)
    )
    salt = hashlib.sha256(bytes(packet) + answer).digest()
    theirs, mine = await agreement.derive(offer.ephemeral, salt, _INFOS)
    return SealedSession(mine, theirs, offer.time), answer


async def _signed(keys: Keys, kind: int, content: Struct) -> bytes:
    body = msgspec.msgpack.encode(content)
    return bytes([kind]) + await keys.sign(_CONTEXT + bytes([kind]) + body) + body


async def _verified(keys: Keys, packet: Buffer, struct_type: type[_T], peer: bytes) -> _T:
    data = bytes(packet)
    kind, signature, body = data[:1], data[1:65], data[65:]
    try:
        content = msgspec.msgpack.decode(body, type=struct_type)
    except MALFORMED as error:
        raise SealError(f"a malformed handshake: {error}") from None
    if content.sender != peer or content.to != keys.public_key:
        raise SealError("a handshake names other peers than those it passed between")
    if not await keys.verify(peer, signature, _CONTEXT + kind + body):
        raise SealError("a handshake is not signed by the peer it names")
    return content
