"""A link's sealed way: agreed once, however the offers cross, and anew after a restart."""

from __future__ import annotations

import asyncio
import random

import pytest

from pyodide_node.hosts.simulated import virtual
from pyodide_node.wire.sealed import RESET, is_answer, is_data, is_offer

from .world import Pair, numbered, pair


async def both_ways(net: Pair, first: int) -> None:
    """Messages arrive in both directions from now on."""
    for end, other in ((net.ada, net.bob), (net.bob, net.ada)):
        before = len(other.got)
        end.link.send(numbered(first))
        end.link.send(numbered(first + 1))
        await asyncio.sleep(1)
        assert other.numbers[before:] == [first, first + 1]


@virtual
async def test_messages_arrive_in_order_and_unread() -> None:
    async with pair() as net:
        for number in range(20):
            net.ada.link.send(numbered(number), b"payload")
        await asyncio.sleep(1)
        assert net.bob.numbers == list(range(20))
        assert set(net.bob.payloads) == {b"payload"}
        assert set(net.bob.paths) == {"relay"}
        assert not any(b"payload" in packet for _, packet in net.passed)


@virtual
async def test_one_handshake_serves_all_that_follows() -> None:
    async with pair() as net:
        await both_ways(net, 0)
        await both_ways(net, 10)
        assert sum(is_offer(packet) for _, packet in net.passed) == 1


@pytest.mark.parametrize("seed", range(40))
def test_however_two_offers_cross_both_sides_agree(seed: int) -> None:
    """Also while signing and verifying take their time, as they do in a tab."""

    @virtual
    async def run() -> None:
        rng = random.Random(seed)
        async with pair(slow=lambda: rng.uniform(0, 0.02)) as net:
            ends = [net.ada, net.bob]
            rng.shuffle(ends)
            ends[0].link.send(numbered(1))
            await asyncio.sleep(rng.uniform(0, 0.06))
            ends[1].link.send(numbered(2))
            await asyncio.sleep(2)
            assert ends[0].numbers == [2]
            assert ends[1].numbers == [1]
            await both_ways(net, 10)

    run()


@virtual
async def test_an_offer_lost_before_the_other_side_came_costs_no_waiting() -> None:
    async with pair() as net:
        net.from_ada = lambda packet: []  # bob is not at the relay yet
        net.ada.link.send(numbered(1))
        await asyncio.sleep(0.5)
        net.from_ada = lambda packet: [packet]
        net.bob.link.send(numbered(2))
        await asyncio.sleep(0.5)
        assert (net.ada.numbers, net.bob.numbers) == ([2], [1])


@virtual
async def test_an_offer_without_an_answer_says_so_and_the_next_message_tries_again() -> None:
    async with pair() as net:
        net.from_bob = lambda packet: []
        net.ada.link.send(numbered(1))
        await asyncio.sleep(11)
        assert net.ada.link.last_error == "this peer does not answer"
        net.from_bob = lambda packet: [packet]
        net.ada.link.send(numbered(2))
        await asyncio.sleep(1)
        assert net.bob.numbers == [2]


@virtual
async def test_without_a_relay_it_says_so() -> None:
    async with pair() as net:
        net.relay_up = False
        net.ada.link.send(numbered(1))
        await asyncio.sleep(1)
        assert net.ada.link.last_error == "there is no relay to reach this peer through"
        assert net.ada.link.path is None


@virtual
async def test_a_relay_lost_afterwards_loses_the_message_and_says_so() -> None:
    async with pair() as net:
        await both_ways(net, 0)
        net.relay_up = False
        net.ada.link.send(numbered(1))
        await asyncio.sleep(1)
        assert net.ada.link.last_error == "the relay is lost"
        net.relay_up = True
        await both_ways(net, 10)


# --- restarts -----------------------------------------------------------------------------


@pytest.mark.parametrize("restarted", ["ada", "bob"])
def test_after_a_restart_messages_pass_again(restarted: str) -> None:
    @virtual
    async def run() -> None:
        async with pair() as net:
            await both_ways(net, 0)
            other = net.bob if restarted == "ada" else net.ada
            fresh = await net.restart(getattr(net, restarted))
            other.link.send(numbered(7))  # sealed for the one that is no more
            await asyncio.sleep(0.1)
            assert fresh.got == []
            await both_ways(net, 10)

    run()


@virtual
async def test_a_restarted_peer_that_speaks_first_begins_a_session_of_its_own() -> None:
    async with pair() as net:
        await both_ways(net, 0)
        fresh = await net.restart(net.bob)
        fresh.link.send(numbered(5))
        await asyncio.sleep(0.5)
        assert net.ada.numbers[-1] == 5
        await both_ways(net, 10)


@virtual
async def test_packets_of_before_a_restart_are_never_taken_for_new_ones() -> None:
    async with pair() as net:
        await both_ways(net, 0)
        old = [packet for sender, packet in net.passed if sender == "ada" and is_data(packet)]
        fresh = await net.restart(net.bob)
        fresh.link.send(numbered(5))
        await asyncio.sleep(0.5)
        for packet in old:
            net.inject(packet, to_bob=True)
        await asyncio.sleep(0.5)
        assert fresh.got == []
        await both_ways(net, 10)


@virtual
async def test_what_was_under_way_to_a_restarted_peer_does_not_undo_its_new_session() -> None:
    """The peer's offer and stale packets cross: none of them may end in a reset of the new."""
    async with pair() as net:
        await both_ways(net, 0)
        fresh = await net.restart(net.bob)
        fresh.link.send(numbered(5))
        for number in range(20, 25):
            net.ada.link.send(numbered(number))
        await asyncio.sleep(0.5)
        assert net.ada.numbers[-1] == 5
        net.ada.link.send(numbered(30))
        await asyncio.sleep(0.5)
        assert fresh.numbers[-1:] == [30]
        assert sum(is_offer(packet) for _, packet in net.passed) == 2


# --- a relay that lies --------------------------------------------------------------------


@virtual
async def test_tampered_packets_are_dropped_and_the_rest_arrives() -> None:
    async with pair() as net:
        await both_ways(net, 0)
        count = len(net.bob.got)
        net.from_ada = lambda packet: [packet[:-1] + bytes([packet[-1] ^ 1])]
        net.ada.link.send(numbered(1))
        await asyncio.sleep(0.1)
        assert "authentic" in net.bob.link.last_error
        net.from_ada = lambda packet: [packet]
        net.ada.link.send(numbered(2))
        await asyncio.sleep(0.1)
        assert net.bob.numbers[count:] == [2]


@virtual
async def test_repeated_and_reordered_packets_arrive_once() -> None:
    async with pair() as net:
        await both_ways(net, 0)
        count = len(net.bob.got)
        held: list[bytes] = []

        def hold(packet: bytes) -> list[bytes]:
            held.append(packet)
            return []

        net.from_ada = hold
        for number in range(3):
            net.ada.link.send(numbered(number))
        await asyncio.sleep(0.1)
        for packet in (held[0], held[0], held[2], held[1], held[2]):
            net.inject(packet, to_bob=True)
        await asyncio.sleep(0.1)
        assert net.bob.numbers[count:] == [0, 2]
        assert "repeated or reordered" in net.bob.link.last_error


@virtual
async def test_a_replayed_handshake_changes_nothing() -> None:
    async with pair() as net:
        await both_ways(net, 0)
        for sender, packet in list(net.passed):
            if is_offer(packet) or is_answer(packet):
                net.inject(packet, to_bob=sender == "ada")
        await asyncio.sleep(0.1)
        await both_ways(net, 10)


@virtual
async def test_an_ignored_offer_cannot_be_used_later_to_split_the_two() -> None:
    """Of two offers that crossed one was passed over; a relay that keeps it gains nothing."""
    async with pair() as net:
        net.ada.link.send(numbered(1))
        net.bob.link.send(numbered(2))
        await asyncio.sleep(1)
        for sender, packet in list(net.passed):
            if is_offer(packet):
                net.inject(packet, to_bob=sender == "ada")
        await asyncio.sleep(0.5)
        await both_ways(net, 10)


@virtual
async def test_junk_is_dropped() -> None:
    async with pair() as net:
        for junk in (b"", b"\0", b"\1", b"\2" + bytes(200), b"\3", b"\1" * 300, b"\xff" * 50):
            net.inject(junk, to_bob=True)
        await asyncio.sleep(0.5)
        await both_ways(net, 0)
        for junk in (b"", b"\0", b"\1", b"\2" + bytes(200), b"\3", b"\3" * 300, b"\xff" * 50):
            net.inject(junk, to_bob=True)
        await asyncio.sleep(0.5)
        await both_ways(net, 10)


@virtual
async def test_forged_resets_cost_a_handshake_and_no_more() -> None:
    async with pair() as net:
        await both_ways(net, 0)
        net.inject(RESET, to_bob=True)
        await asyncio.sleep(0.1)
        net.bob.link.send(numbered(1))
        await asyncio.sleep(0.5)
        assert net.ada.numbers[-1] == 1
        await both_ways(net, 10)


@virtual
async def test_clocks_three_minutes_apart_are_named_as_the_reason() -> None:
    async with pair() as net:
        net.ada.host.clock.skew = -180.0  # type: ignore[attr-defined]
        net.ada.link.send(numbered(1))
        await asyncio.sleep(11)
        assert "clock that is off" in net.bob.link.last_error
        assert net.bob.got == []
