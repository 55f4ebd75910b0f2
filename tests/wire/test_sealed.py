"""Two nodes agree on keys through a relay that may do anything it likes with their packets."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyodide_node.errors import SealError
from pyodide_node.hosts.crypto import SoftwareKeys
from pyodide_node.wire import limits
from pyodide_node.wire.sealed import (
    RESET,
    Offering,
    SealedSession,
    accept,
    is_answer,
    is_data,
    is_offer,
)
from tests.wire.keys import keys_of

NOW = 1_790_000_000.0


@dataclass
class Pair:
    """Alice offers, Bob answers; all that passes between them is here to be tampered with."""

    alice: SoftwareKeys
    bob: SoftwareKeys
    offering: Offering
    answer: bytes
    at_alice: SealedSession
    at_bob: SealedSession

    @classmethod
    async def agree(cls) -> Pair:
        alice, bob = keys_of("alice"), keys_of("bob")
        offering = await Offering.begin(alice, bob.public_key, NOW)
        at_bob, answer = await accept(bob, alice.public_key, offering.packet, NOW, 0)
        at_alice = await offering.complete(answer)
        return cls(alice, bob, offering, answer, at_alice, at_bob)


async def test_both_directions_carry_what_was_said() -> None:
    pair = await Pair.agree()
    for words in (b"", b"hello", bytes(100_000)):
        assert await pair.at_bob.open(await pair.at_alice.seal(words)) == words
        assert await pair.at_alice.open(await pair.at_bob.seal(words)) == words


async def test_packets_tell_what_they_are() -> None:
    pair = await Pair.agree()
    data = await pair.at_alice.seal(b"hello")
    packets = [pair.offering.packet, pair.answer, data, RESET, b""]
    kinds = [(is_offer(p), is_answer(p), is_data(p)) for p in packets]
    no = (False, False, False)
    assert kinds == [(True, False, False), (False, True, False), (False, False, True), no, no]


async def test_views_serve_as_well_as_bytes() -> None:
    pair = await Pair.agree()
    packet = await pair.at_alice.seal(memoryview(b"hello"))
    assert is_data(memoryview(packet))
    assert await pair.at_bob.open(memoryview(packet)) == b"hello"


async def test_the_relay_sees_neither_words_nor_their_repetition() -> None:
    pair = await Pair.agree()
    first, second = await pair.at_alice.seal(b"secret"), await pair.at_alice.seal(b"secret")
    assert b"secret" not in first + second
    assert first[9:] != second[9:]


async def test_both_know_when_the_session_was_offered() -> None:
    pair = await Pair.agree()
    assert pair.at_alice.offered == pair.at_bob.offered == pair.offering.time == NOW * 1000


async def test_each_session_has_keys_of_its_own() -> None:
    pair = await Pair.agree()
    again = await Offering.begin(pair.alice, pair.bob.public_key, NOW + 1)
    at_bob, answer = await accept(
        pair.bob, pair.alice.public_key, again.packet, NOW + 1, pair.offering.time
    )
    await again.complete(answer)
    with pytest.raises(SealError, match="not authentic"):
        await at_bob.open(await pair.at_alice.seal(b"hello"))


# --- packets ------------------------------------------------------------------------------


async def test_any_changed_byte_of_a_packet_is_refused_and_harms_nothing() -> None:
    pair = await Pair.agree()
    packet = await pair.at_alice.seal(b"hello")
    for position in range(len(packet)):
        changed = bytearray(packet)
        changed[position] ^= 1
        with pytest.raises(SealError):
            await pair.at_bob.open(bytes(changed))
    assert await pair.at_bob.open(packet) == b"hello"


async def test_any_truncated_packet_is_refused() -> None:
    pair = await Pair.agree()
    packet = await pair.at_alice.seal(b"hello")
    for size in range(len(packet)):
        with pytest.raises(SealError):
            await pair.at_bob.open(packet[:size])


async def test_a_repeated_packet_is_refused() -> None:
    pair = await Pair.agree()
    packet = await pair.at_alice.seal(b"hello")
    await pair.at_bob.open(packet)
    with pytest.raises(SealError, match="repeated or reordered"):
        await pair.at_bob.open(packet)


async def test_a_packet_behind_a_later_one_is_refused_and_a_lost_one_is_borne() -> None:
    pair = await Pair.agree()
    packets = [await pair.at_alice.seal(bytes([n])) for n in range(3)]
    assert await pair.at_bob.open(packets[0]) == b"\0"
    assert await pair.at_bob.open(packets[2]) == b"\2"
    with pytest.raises(SealError, match="repeated or reordered"):
        await pair.at_bob.open(packets[1])


async def test_a_packet_sent_back_to_its_sender_is_refused() -> None:
    pair = await Pair.agree()
    with pytest.raises(SealError, match="not authentic"):
        await pair.at_alice.open(await pair.at_alice.seal(b"hello"))


@given(packet=st.binary(max_size=60))
async def test_junk_is_refused(packet: bytes) -> None:
    pair = await Pair.agree()
    for junk in (packet, b"\3" + packet):
        with pytest.raises(SealError):
            await pair.at_bob.open(junk)


# --- offers -------------------------------------------------------------------------------


async def test_an_offer_is_taken_once() -> None:
    pair = await Pair.agree()
    with pytest.raises(SealError, match="old"):
        await accept(pair.bob, pair.alice.public_key, pair.offering.packet, NOW, pair.offering.time)


@pytest.mark.parametrize("drift", [-limits.CLOCK_SKEW - 1, limits.CLOCK_SKEW + 1])
async def test_an_offer_of_another_time_is_refused(drift: float) -> None:
    alice, bob = keys_of("alice"), keys_of("bob")
    offering = await Offering.begin(alice, bob.public_key, NOW + drift)
    with pytest.raises(SealError, match="old or from a clock that is off"):
        await accept(bob, alice.public_key, offering.packet, NOW, 0)


async def test_an_offer_said_to_be_of_another_peer_is_refused() -> None:
    alice, bob, mallory = keys_of("alice"), keys_of("bob"), keys_of("mallory")
    offering = await Offering.begin(alice, bob.public_key, NOW)
    with pytest.raises(SealError, match="other peers"):
        await accept(bob, mallory.public_key, offering.packet, NOW, 0)


async def test_an_offer_to_another_peer_is_refused() -> None:
    alice, bob, mallory = keys_of("alice"), keys_of("bob"), keys_of("mallory")
    offering = await Offering.begin(alice, mallory.public_key, NOW)
    with pytest.raises(SealError, match="other peers"):
        await accept(bob, alice.public_key, offering.packet, NOW, 0)


async def test_an_offer_in_the_name_of_another_peer_is_refused() -> None:
    alice, bob, mallory = keys_of("alice"), keys_of("bob"), keys_of("mallory")
    honest = await Offering.begin(alice, bob.public_key, NOW)
    body = honest.packet[65:]
    forged = b"\1" + await mallory.sign(b"kwaainet/seal/1\0\1" + body) + body
    with pytest.raises(SealError, match="not signed"):
        await accept(bob, alice.public_key, forged, NOW, 0)


async def test_any_changed_byte_of_an_offer_is_refused() -> None:
    alice, bob = keys_of("alice"), keys_of("bob")
    packet = (await Offering.begin(alice, bob.public_key, NOW)).packet
    for position in range(len(packet)):
        changed = bytearray(packet)
        changed[position] ^= 1
        with pytest.raises(SealError):
            await accept(bob, alice.public_key, bytes(changed), NOW, 0)


# --- answers ------------------------------------------------------------------------------


async def test_any_changed_byte_of_an_answer_is_refused() -> None:
    pair = await Pair.agree()
    for position in range(len(pair.answer)):
        changed = bytearray(pair.answer)
        changed[position] ^= 1
        with pytest.raises(SealError):
            await pair.offering.complete(bytes(changed))


async def test_an_answer_to_another_offer_is_refused() -> None:
    pair = await Pair.agree()
    later = await Offering.begin(pair.alice, pair.bob.public_key, NOW + 1)
    with pytest.raises(SealError, match="another offer"):
        await later.complete(pair.answer)


async def test_an_answer_of_another_peer_is_refused() -> None:
    alice, bob, mallory = keys_of("alice"), keys_of("bob"), keys_of("mallory")
    to_bob = await Offering.begin(alice, bob.public_key, NOW)
    to_mallory = await Offering.begin(alice, mallory.public_key, NOW)
    _, answer = await accept(mallory, alice.public_key, to_mallory.packet, NOW, 0)
    with pytest.raises(SealError, match="other peers"):
        await to_bob.complete(answer)


async def test_an_offer_is_no_answer_and_an_answer_no_offer() -> None:
    pair = await Pair.agree()
    back = await Offering.begin(pair.bob, pair.alice.public_key, NOW)
    with pytest.raises(SealError, match="malformed"):
        await pair.offering.complete(back.packet)
    with pytest.raises(SealError, match="malformed"):
        await accept(pair.alice, pair.bob.public_key, pair.answer, NOW, 0)


async def test_a_key_that_agrees_on_nothing_is_refused() -> None:
    """Low order (RFC 7748, section 6.1), properly signed by the peer itself."""
    alice, bob = keys_of("alice"), keys_of("bob")
    offering = await Offering.begin(alice, bob.public_key, NOW)
    digest = hashlib.sha256(offering.packet).digest()
    body = msgspec.msgpack.encode([bob.public_key, alice.public_key, bytes(32), digest])
    answer = b"\2" + await bob.sign(b"kwaainet/seal/1\0\2" + body) + body
    with pytest.raises(SealError, match="agrees on nothing"):
        await offering.complete(answer)


@given(packet=st.binary(max_size=200))
async def test_junk_handshakes_are_refused(packet: bytes) -> None:
    alice, bob = keys_of("alice"), keys_of("bob")
    with pytest.raises(SealError):
        await accept(bob, alice.public_key, b"\1" + packet, NOW, 0)
    offering = await Offering.begin(alice, bob.public_key, NOW)
    with pytest.raises(SealError):
        await offering.complete(b"\2" + packet)


async def test_deep_nesting_in_a_handshake_is_refused() -> None:
    alice, bob = keys_of("alice"), keys_of("bob")
    fields = [alice.public_key, bob.public_key, bytes(32), 1, None]
    body = msgspec.msgpack.encode(fields)[:-1] + b"\x91" * 50_000 + b"\xc0"
    with pytest.raises(SealError, match="malformed"):
        await accept(bob, alice.public_key, b"\1" + bytes(64) + body, NOW, 0)
