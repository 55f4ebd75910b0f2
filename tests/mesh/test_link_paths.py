"""A link's two ways: it finds the direct one, uses what is better, and bears the loss of each."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyodide_node.errors import Unreachable
from pyodide_node.hosts.simulated import virtual
from pyodide_node.wire import limits
from pyodide_node.wire.frames import encode
from pyodide_node.wire.messages import PathPing, SignalMessage, to_frame

from .world import End, Pair, numbered, pair


async def connect(net: Pair) -> None:
    net.ada.link.warm()
    assert await net.ada.link.direct_open(5)
    assert await net.bob.link.direct_open(5)
    await asyncio.sleep(0.5)


def end_to_end(end: End, message: Any, payload: bytes = b"") -> None:
    """Straight into the data channel, past the link's own choices."""
    epoch = end.link._epoch
    assert epoch is not None
    frame = to_frame(message, payload, sequence=epoch.sequence)
    epoch.sequence += 1
    epoch.channel._connection.send(encode(frame))  # type: ignore[union-attr]


@virtual
async def test_a_data_channel_opens_by_itself_and_is_used() -> None:
    async with pair(policy="auto") as net:
        await connect(net)
        net.ada.link.send(numbered(1), bytes(50_000))
        await asyncio.sleep(1)
        assert (net.bob.numbers, net.bob.paths) == ([1], ["webrtc"])
        assert net.bob.payloads == [bytes(50_000)]
        assert net.ada.link.path == "webrtc"


@virtual
async def test_what_is_sent_before_the_channel_opens_goes_by_the_relay_at_once() -> None:
    async with pair(policy="auto") as net:
        net.ada.link.send(numbered(1))
        await asyncio.sleep(0.05)
        assert (net.bob.numbers, net.bob.paths) == ([1], ["relay"])


@virtual
async def test_paths_are_measured_while_they_are_open() -> None:
    async with pair(policy="auto") as net:
        await connect(net)
        for end in (net.ada, net.bob):
            assert end.link.paths.rtt("webrtc") == pytest.approx(0.020, abs=0.002)
        link = net.network.link(net.ada.host.name, net.bob.host.name)  # type: ignore[attr-defined]
        link.delay = 0.100
        await asyncio.sleep(200)
        assert net.ada.link.paths.rtt("webrtc") == pytest.approx(0.200, abs=0.01)
        assert net.ada.link.paths.rtt("relay") == pytest.approx(0.020, abs=0.002)
        assert net.ada.link.path == "relay"


@virtual
async def test_a_relay_preferred_but_lost_gives_way_to_the_channel() -> None:
    async with pair(policy="auto") as net:
        await connect(net)
        net.ada.link.paths.measured("webrtc", 1.0)
        assert net.ada.link.path == "relay"
        net.relay_up = False
        net.ada.link.send(numbered(1))
        await asyncio.sleep(0.5)
        assert (net.bob.numbers, net.bob.paths) == ([1], ["webrtc"])


@virtual
async def test_a_lost_channel_gives_way_to_the_relay_and_is_opened_again() -> None:
    async with pair(policy="auto") as net:
        await connect(net)
        assert net.ada.link._epoch is not None
        await net.ada.link._epoch.channel._connection.close()  # type: ignore[union-attr]
        await asyncio.sleep(0.1)
        assert not net.ada.link.direct
        net.ada.link.send(numbered(1))
        await asyncio.sleep(0.1)
        assert (net.bob.numbers, net.bob.paths) == ([1], ["relay"])
        await asyncio.sleep(5)
        assert net.ada.link.direct
        assert net.bob.link.direct


@virtual
async def test_a_channel_that_closes_under_a_message_does_not_lose_or_double_it() -> None:
    async with pair(policy="auto") as net:
        await connect(net)
        net.network.link(net.ada.host.name, net.bob.host.name).bandwidth = 1e5  # type: ignore[attr-defined]
        net.ada.link.send(numbered(1), bytes(3_000_000))
        await asyncio.sleep(1)
        assert net.ada.link._epoch is not None
        await net.ada.link._epoch.channel._connection.close()  # type: ignore[union-attr]
        await asyncio.sleep(60)
        assert net.bob.numbers == [1]
        assert net.bob.payloads == [bytes(3_000_000)]


@virtual
async def test_ice_that_fails_is_tried_again_ever_more_rarely() -> None:
    async with pair(policy="auto") as net:
        net.network.block_webrtc(net.ada.host.name, net.bob.host.name)  # type: ignore[attr-defined]
        net.ada.link.warm()
        await asyncio.sleep(600)
        assert not net.ada.link.direct
        assert net.ada.link._epoch is not None
        tries = net.ada.link._epoch.channel._attempt
        assert 8 < tries < 18
        net.network.unblock_webrtc(net.ada.host.name, net.bob.host.name)  # type: ignore[attr-defined]
        assert await net.ada.link.direct_open(130)


@virtual
async def test_a_host_without_webrtc_stays_on_the_relay() -> None:
    async with pair(policy="auto") as net:
        net.network.block_webrtc(net.bob.host.name)  # type: ignore[attr-defined]
        net.ada.link.send(numbered(1))
        net.bob.link.send(numbered(2))
        await asyncio.sleep(30)
        assert (net.ada.numbers, net.bob.numbers) == ([2], [1])
        assert not await net.ada.link.direct_open(1)


@virtual
async def test_relay_only_never_tries_a_channel() -> None:
    async with pair(policy="relay") as net:
        net.ada.link.send(numbered(1))
        await asyncio.sleep(30)
        assert net.bob.numbers == [1]
        assert net.network.peers == {}


@virtual
async def test_webrtc_only_waits_for_the_channel() -> None:
    async with pair(policy="webrtc") as net:
        net.ada.link.send(numbered(1))
        await asyncio.sleep(1)
        assert (net.bob.numbers, net.bob.paths) == ([1], ["webrtc"])


@virtual
async def test_webrtc_only_without_a_channel_loses_the_message_and_says_so() -> None:
    async with pair(policy="webrtc") as net:
        net.network.block_webrtc(net.ada.host.name, net.bob.host.name)  # type: ignore[attr-defined]
        net.ada.link.send(numbered(1))
        await asyncio.sleep(30)
        assert net.bob.numbers == []
        assert net.ada.link.last_error == "no direct path to this peer"


@virtual
async def test_webrtc_only_a_message_that_a_channel_closes_under_goes_by_the_next_one() -> None:
    async with pair(policy="webrtc") as net:
        await connect(net)
        net.network.link(net.ada.host.name, net.bob.host.name).bandwidth = 1e5  # type: ignore[attr-defined]
        net.ada.link.send(numbered(1), bytes(3_000_000))
        await asyncio.sleep(1)
        assert net.ada.link._epoch is not None
        await net.ada.link._epoch.channel._connection.close()  # type: ignore[union-attr]
        await asyncio.sleep(1)
        assert net.bob.numbers == []
        await asyncio.sleep(60)
        assert (net.bob.numbers, net.bob.paths) == ([1], ["webrtc"])


# --- a relay and a peer that lie ----------------------------------------------------------


@virtual
async def test_signals_that_come_by_the_channel_are_not_taken() -> None:
    """They are for a connection that is not there yet; by the relay they came sealed."""
    async with pair(policy="auto") as net:
        await connect(net)
        end_to_end(net.ada, SignalMessage(99, "offer", "v=0", "", 0))
        await asyncio.sleep(1)
        assert net.bob.link.direct


@virtual
async def test_a_description_that_is_none_ends_that_attempt_only() -> None:
    async with pair(policy="auto") as net:
        await connect(net)
        net.ada.link._send_own(SignalMessage(50, "offer", "not sdp", "", 0))
        await asyncio.sleep(0.5)
        assert not net.bob.link.direct
        net.ada.link.send(numbered(1))
        await asyncio.sleep(0.5)
        assert net.bob.numbers == [1]


@virtual
async def test_a_flood_of_signals_is_dropped() -> None:
    async with pair(policy="auto") as net:
        await connect(net)
        for _ in range(500):
            net.ada.link._send_own(SignalMessage(0, "candidate", "", "", 0))
        await asyncio.sleep(1)
        net.ada.link.send(numbered(1))
        await asyncio.sleep(1)
        assert net.bob.numbers == [1]
        assert net.bob.link.direct


@virtual
async def test_bytes_that_are_no_frames_are_dropped_whichever_way_they_come() -> None:
    async with pair(policy="auto") as net:
        await connect(net)
        epoch = net.ada.link._epoch
        assert epoch is not None
        for junk in (b"", b"\xff" * 30, bytes(20), encode(to_frame(numbered(1)))[:-1]):
            epoch.channel._connection.send(junk)  # type: ignore[union-attr]
            net.inject(await epoch.session.seal(junk), to_bob=True)
        await asyncio.sleep(0.5)
        assert net.bob.link.last_error
        net.ada.link.send(numbered(1))
        await asyncio.sleep(0.5)
        assert net.bob.numbers == [1]


@virtual
async def test_a_peer_that_takes_nothing_costs_a_bounded_amount_of_memory() -> None:
    async with pair(policy="auto") as net:
        await connect(net)
        net.network.cut(net.ada.host.name, net.bob.host.name)  # type: ignore[attr-defined]
        net.ada.link.paths.measured("relay", 60.0)
        for payload in (bytes(1_000_000), b""):
            with pytest.raises(Unreachable, match="takes messages too slowly"):
                await flood(net.ada, payload)


async def flood(end: End, payload: bytes) -> None:
    for _ in range(200_000):
        end.link.send(numbered(1), payload)
        await asyncio.sleep(0)


@virtual
async def test_a_flood_of_packets_is_dropped_beyond_what_may_wait() -> None:
    async with pair() as net:
        net.bob.link.take_packet(bytes(limits.OUTBOX))
        net.bob.link.take_packet(b"one more")
        assert net.bob.link._inbox.qsize() == 1
        for _ in range(1_000_000):
            net.ada.link.take_packet(b"")
        assert net.ada.link._inbox.qsize() < 200_000


@virtual
async def test_a_flood_of_pings_to_which_no_answer_is_read_is_not_answered_for_ever() -> None:
    async with pair(policy="auto") as net:
        await connect(net)
        link = net.network.link(net.ada.host.name, net.bob.host.name)  # type: ignore[attr-defined]
        link.bandwidth = 1e5
        before = len(asyncio.all_tasks())
        for number in range(60_000):
            ping = to_frame(PathPing(number), sequence=1000 + number)
            net.bob.link._take_channel_data(encode(ping))
            if number % 100 == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        assert len(asyncio.all_tasks()) < before + 150
