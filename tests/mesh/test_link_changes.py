"""Going over from one way to the other loses no message and doubles none."""

from __future__ import annotations

import asyncio
import random

import pytest

from pyodide_node.hosts.simulated import virtual
from pyodide_node.mesh.unheard import Unheard
from pyodide_node.wire import limits
from pyodide_node.wire.frames import Frame

from .test_link_paths import connect
from .world import Pair, numbered, pair

ANSWER = range(200)
EVERY = 0.004


async def answer(net: Pair) -> None:
    """A stream of messages, as an answer's steps are."""
    for number in ANSWER:
        net.ada.link.send(numbered(number), bytes(3000))
        await asyncio.sleep(EVERY)


def silence(net: Pair, seconds: float) -> None:
    """Nothing passes between the two any more but by the relay; the connection is noticed to be
    lost, and what was on its way is, after so long."""
    net.network.silence = seconds
    net.network.cut(net.ada.host.name, net.bob.host.name)  # type: ignore[attr-defined]


@virtual
async def test_a_channel_that_comes_up_in_an_answer() -> None:
    async with pair(policy="auto") as net:
        await answer(net)
        await asyncio.sleep(1)
        assert set(net.bob.paths) == {"relay", "webrtc"}
        assert sorted(net.bob.numbers) == list(ANSWER)


@virtual
@pytest.mark.parametrize("after", [0.05, 0.4, 5.0])
async def test_a_channel_that_dies_in_an_answer(after: float) -> None:
    async with pair(policy="auto") as net:
        await connect(net)
        running = asyncio.create_task(answer(net))
        await asyncio.sleep(0.3)
        silence(net, after)
        await running
        await asyncio.sleep(10)
        assert set(net.bob.paths) == {"relay", "webrtc"}
        assert sorted(net.bob.numbers) == list(ANSWER)


@virtual
async def test_channels_that_come_and_go_all_the_time() -> None:
    luck = random.Random(7)
    async with pair(policy="auto") as net:
        running = asyncio.create_task(answer(net))
        while not running.done():
            await asyncio.sleep(luck.uniform(0, 0.2))
            silence(net, luck.uniform(0, 0.05))
            await asyncio.sleep(luck.uniform(0, 0.2))
            net.network.heal(net.ada.host.name, net.bob.host.name)  # type: ignore[attr-defined]
        await asyncio.sleep(30)
        assert sorted(net.bob.numbers) == list(ANSWER)


@virtual
async def test_a_channel_that_falls_silent_is_doubted_before_a_step_is_given_up() -> None:
    async with pair(policy="auto") as net:
        await connect(net)
        silence(net, 60)
        net.ada.link.send(numbered(1))
        assert net.ada.link.path == "webrtc"
        await asyncio.sleep(2)
        assert (net.bob.numbers, net.bob.paths) == ([1], ["relay"])
        assert net.ada.link.path == "relay"


@virtual
async def test_nothing_is_sent_twice_to_a_peer_that_is_only_busy() -> None:
    async with pair(policy="auto") as net:
        await connect(net)
        silence(net, 60)
        net.from_bob = lambda packet: []
        net.ada.link.send(numbered(1), bytes(100_000))
        await asyncio.sleep(20)
        assert all(len(packet) < 1000 for _, packet in net.passed)
        net.network.heal(net.ada.host.name, net.bob.host.name)  # type: ignore[attr-defined]
        await asyncio.sleep(1)
        assert (net.bob.numbers, net.bob.paths) == ([1], ["webrtc"])


@virtual
async def test_what_finds_no_way_at_all_waits_for_the_relay() -> None:
    async with pair(policy="auto") as net:
        await connect(net)
        net.ada.link.send(numbered(1))
        silence(net, 0.5)
        net.relay_up = False
        await asyncio.sleep(1.5)
        assert net.bob.numbers == []
        net.relay_up = True
        net.ada.link.resume()
        await asyncio.sleep(0.5)
        assert (net.bob.numbers, net.bob.paths) == ([1], ["relay"])


@virtual
async def test_what_was_heard_is_let_go() -> None:
    async with pair(policy="auto") as net:
        await connect(net)
        await answer(net)
        await asyncio.sleep(1)
        assert net.ada.link._epoch is not None
        assert len(net.ada.link._epoch.custody.unheard) == 0


def frame(sequence: int, size: int = 10) -> Frame:
    return Frame(type=1, sequence=sequence, payload=bytes(size))


def test_late_frames_are_taken_oldest_first_and_once() -> None:
    unheard = Unheard()
    for number in range(5):
        unheard.sent(frame(number), float(number))
    unheard.heard([0, 3, 99])
    assert unheard.oldest == 1.0
    assert [one.sequence for one in unheard.take_all(before=4.0)] == [1, 2]
    assert [one.sequence for one in unheard.take_all()] == [4]
    assert (len(unheard), unheard.oldest, unheard.take(4)) == (0, None, False)


def test_a_peer_that_never_says_what_it_has_costs_a_bounded_amount() -> None:
    unheard = Unheard()
    for number in range(100):
        unheard.sent(frame(number, limits.MESSAGE), 0.0)
    assert sum(one.length for one in unheard.take_all()) <= limits.UNHEARD
