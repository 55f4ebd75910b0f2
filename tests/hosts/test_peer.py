"""WebRTC connections, on both hosts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

import pytest

from pyodide_node.errors import LocalError, ProtocolError
from pyodide_node.hosts.base import Host, Signal
from pyodide_node.hosts.native import peer as native_peer
from pyodide_node.wire.limits import CHANNEL_MESSAGE, LOW_WATER
from tests.hosts.pairs import End, Pair
from tests.hosts.worlds import World, conforms, swapped

CANDIDATE = re.compile(r"a=(candidate:.*|end-of-candidates)\r\n")
FINGERPRINT = re.compile(r"a=fingerprint:sha-256 ((?:[0-9A-F]{2}:){31}[0-9A-F]{2})\r\n")


async def hosts(world: World) -> tuple[Host, Host]:
    return await world.host("ada"), await world.host("ben")


@conforms
async def test_messages_pass_both_ways_whole_and_in_order(world: World) -> None:
    async with Pair(*await hosts(world)) as pair:
        await pair.open()
        sent = [bytes([i % 256]) * (i * 41 % CHANNEL_MESSAGE + 1) for i in range(200)]
        scratch = bytearray(CHANNEL_MESSAGE)
        for message in sent:
            # The caller's buffer is free again at once.
            scratch[: len(message)] = message
            pair.ada.peer.send(memoryview(scratch)[: len(message)])
        pair.ben.peer.send(b"")
        assert [await pair.ben.inbox.get() for _ in sent] == sent
        assert await pair.ada.inbox.get() == b""
        assert pair.ada.openings == pair.ben.openings == 1


@conforms
async def test_descriptions_carry_a_fingerprint(world: World) -> None:
    said = []

    def note(sender: End, signal: Signal) -> Iterable[Signal]:
        said.append(signal)
        return [signal]

    async with Pair(*await hosts(world), post=note) as pair:
        await pair.open()
    described = [signal for signal in said if signal.kind != "candidate"]
    assert [signal.kind for signal in described] == ["offer", "answer"]
    prints = [FINGERPRINT.findall(signal.sdp) for signal in described]
    assert [len(one) for one in prints] == [1, 1]
    assert prints[0] != prints[1]


@conforms
async def test_candidates_may_trickle_even_ahead_of_the_description(world: World) -> None:
    held: dict[End, Signal] = {}

    def candidates_first(sender: End, signal: Signal) -> Iterable[Signal]:
        if signal.kind == "candidate":
            yield signal
            if signal.sdp and sender in held:
                yield held.pop(sender)
            return
        lines = CANDIDATE.findall(signal.sdp)
        for line in lines:
            yield Signal(kind="candidate", sdp="" if line[0] == "e" else line, mid="0")
        bare = replace(signal, sdp=CANDIDATE.sub("", signal.sdp))
        if lines:
            yield bare
        else:
            held[sender] = bare

    async with Pair(*await hosts(world), post=candidates_first) as pair:
        await pair.open()


@conforms
async def test_ice_that_finds_no_way_is_given_up(world: World) -> None:
    def no_candidates(sender: End, signal: Signal) -> Iterable[Signal]:
        if signal.kind != "candidate":
            yield replace(signal, sdp=CANDIDATE.sub("", signal.sdp))

    with swapped(native_peer, "ICE_DEADLINE", 0.3):
        async with Pair(*await hosts(world), post=no_candidates) as pair:
            await pair.ada.ended.wait()
            await pair.ben.ended.wait()
            assert "ICE" in pair.ada.reasons[0]
            assert pair.ada.openings == pair.ben.openings == 0


@conforms
async def test_an_offer_that_nobody_answers_is_given_up(world: World) -> None:
    with swapped(native_peer, "SIGNALLING_DEADLINE", 0.3):
        async with Pair(*await hosts(world), post=lambda *_: []) as pair:
            await pair.ada.ended.wait()
            await pair.ben.ended.wait()


@conforms
async def test_a_swapped_fingerprint_opens_nothing(world: World) -> None:
    def swap(sender: End, signal: Signal) -> Iterable[Signal]:
        if signal.kind == "offer":
            signal = replace(
                signal, sdp=FINGERPRINT.sub(lambda m: m[0].replace(m[1], m[1][::-1]), signal.sdp)
            )
        return [signal]

    with swapped(native_peer, "ICE_DEADLINE", 1.0):
        async with Pair(*await hosts(world), post=swap) as pair:
            await pair.ada.ended.wait()
            await pair.ben.ended.wait()
            assert pair.ben.openings == 0


@conforms
async def test_both_sides_hear_of_a_close_once(world: World) -> None:
    async with Pair(*await hosts(world)) as pair:
        await pair.open()
        await pair.ada.peer.close()
        assert pair.ada.reasons == ["closed here"]
        await pair.ben.ended.wait()
        await pair.ada.peer.close()
        for end in (pair.ada, pair.ben):
            end.peer.send(b"into the void")
            await end.peer.drain()
            assert end.peer.buffered == 0
            await end.peer.signal(Signal(kind="candidate", sdp=""))


@conforms
async def test_one_that_never_opened_closes_once_too(world: World) -> None:
    async with Pair(*await hosts(world), post=lambda *_: []) as pair:
        await pair.ada.peer.close()
        assert pair.ada.reasons == ["closed here"]
        assert pair.ada.openings == 0


@conforms
async def test_descriptions_that_make_no_sense_are_refused(world: World) -> None:
    async with Pair(*await hosts(world), post=lambda *_: []) as pair:
        for sdp in ("", "nonsense", "v=0\r\n", "v=0\r\nm=audio 9 RTP/AVP 0\r\n", "\0" * 5000):
            with pytest.raises(ProtocolError):
                await pair.ada.peer.signal(Signal(kind="answer", sdp=sdp))
            with pytest.raises(ProtocolError):
                await pair.ben.peer.signal(Signal(kind="offer", sdp=sdp))
        with pytest.raises(ProtocolError):
            await pair.ada.peer.signal(Signal(kind="offer", sdp=""))
        with pytest.raises(ProtocolError):
            await pair.ben.peer.signal(Signal(kind="answer", sdp=""))


@conforms
async def test_candidates_that_make_no_sense_harm_nothing(world: World) -> None:
    async with Pair(*await hosts(world)) as pair:
        await pair.open()
        with pytest.raises(ProtocolError):
            await pair.ada.peer.signal(Signal(kind="candidate", sdp="nonsense", mid="0"))
        pair.ada.peer.send(b"still here")
        assert await pair.ben.inbox.get() == b"still here"


@conforms
async def test_a_second_description_is_refused(world: World) -> None:
    said = []

    def note(sender: End, signal: Signal) -> Iterable[Signal]:
        said.append(signal)
        return [signal]

    async with Pair(*await hosts(world), post=note) as pair:
        await pair.open()
        (answer,) = [signal for signal in said if signal.kind == "answer"]
        with pytest.raises(ProtocolError):
            await pair.ada.peer.signal(answer)


@conforms
async def test_a_message_too_large_for_the_channel_is_our_bug(world: World) -> None:
    async with Pair(*await hosts(world)) as pair:
        await pair.open()
        with pytest.raises(LocalError):
            pair.ada.peer.send(bytes(CHANNEL_MESSAGE + 1))


@conforms
async def test_a_sender_waits_until_enough_has_left(world: World) -> None:
    async with Pair(*await hosts(world)) as pair:
        await pair.open()
        count = 2 * LOW_WATER // CHANNEL_MESSAGE
        for _ in range(count):
            pair.ada.peer.send(bytes(CHANNEL_MESSAGE))
        assert pair.ada.peer.buffered >= LOW_WATER
        await pair.ada.peer.drain()
        assert pair.ada.peer.buffered < LOW_WATER
        for _ in range(count):
            assert len(await pair.ben.inbox.get()) == CHANNEL_MESSAGE


@conforms
async def test_what_is_sent_before_it_opens_is_dropped(world: World) -> None:
    async with Pair(*await hosts(world)) as pair:
        pair.ada.peer.send(b"too early")
        assert pair.ada.peer.buffered == 0
        await pair.open()
        pair.ada.peer.send(b"now")
        assert await pair.ben.inbox.get() == b"now"
