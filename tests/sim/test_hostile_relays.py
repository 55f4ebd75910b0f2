"""A relay that means ill: it may keep nodes apart, but neither read, change nor invent a word."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import pytest

from pyodide_node.hosts.simulated import virtual
from pyodide_node.wire.frames import Frame
from pyodide_node.wire.messages import (
    Forwarded,
    Gone,
    Undelivered,
    decode,
    to_frame,
)
from pyodide_node.wire.sealed import RESET, is_answer, is_data, is_offer

from .hostile import key_of, tampering
from .swarm import Swarm, ask, swarm


async def halves(net: Swarm, **config: object) -> None:
    await net.node("ada", max_blocks=4, **config)
    await net.node("bob", max_blocks=4, **config)
    await net.covered()


def forwarded(frame: Frame) -> bool:
    return isinstance(decode(frame), Forwarded)


def with_payload(frame: Frame, payload: bytes) -> Frame:
    return Frame(type=frame.type, body=frame.body, payload=payload)


@virtual
async def test_nothing_that_passes_can_be_read() -> None:
    async with swarm() as net:
        relay, passed = tampering(net), bytearray()

        def look(host: str, frame: Frame) -> Sequence[Frame]:
            if forwarded(frame):
                passed.extend(frame.payload)
            return [frame]

        relay.to_node = look
        await halves(net, path="relay")
        answer = await ask(net.nodes["ada"], 6)
        assert answer.ids == net.expected(6)
        embed = net.model.blobs[net.model.manifest.embed.sha256]
        rows = [embed[row * 128 : row * 128 + 16] for row in range(258)]
        assert len(passed) > 5_000
        assert not any(row in passed for row in rows)
        assert b"candidate" not in passed
        assert b"fingerprint" not in passed


@virtual
async def test_replayed_packets_change_no_word() -> None:
    async with swarm() as net:
        relay, kept = tampering(net), list[Frame]()

        def replay(host: str, frame: Frame) -> Sequence[Frame]:
            if not forwarded(frame):
                return [frame]
            kept.append(frame)
            return [frame, frame, *kept[-3:-1], kept[len(kept) // 2]]

        relay.to_node = replay
        await halves(net, path="relay")
        assert (await ask(net.nodes["ada"], 6)).ids == net.expected(6)


@pytest.mark.parametrize("every", [23, 51])
def test_tampered_packets_change_no_word(every: int) -> None:
    @virtual
    async def run() -> None:
        async with swarm() as net:
            relay, count = tampering(net), 0

            def tamper(host: str, frame: Frame) -> Sequence[Frame]:
                nonlocal count
                if forwarded(frame) and is_data(frame.payload):
                    count += 1
                    if count % every == 0:
                        changed = bytearray(frame.payload)
                        changed[count % len(changed)] ^= 1
                        return [with_payload(frame, bytes(changed))]
                return [frame]

            relay.to_node = tamper
            await halves(net, path="relay")
            await net.node("cyd", path="relay")
            relayed = await ask(net.nodes["ada"], 6)
            assert relayed.ids == net.expected(6)

    run()


@virtual
async def test_reordered_packets_change_no_word() -> None:
    async with swarm() as net:
        relay, held = tampering(net), list[Frame]()

        def reorder(host: str, frame: Frame) -> Sequence[Frame]:
            if host != "bob" or not forwarded(frame) or not is_data(frame.payload):
                return [frame]
            held.append(frame)
            if len(held) < 2:
                return []
            out = held[::-1]
            held.clear()
            return out

        relay.to_node = reorder
        await halves(net)
        assert (await ask(net.nodes["ada"], 6)).ids == net.expected(6)


@virtual
async def test_packets_passed_on_as_another_s_are_dropped() -> None:
    async with swarm() as net:
        relay = tampering(net)

        def mislabel(host: str, frame: Frame) -> Sequence[Frame]:
            if host == "ada" and forwarded(frame):
                others = [one.keys.public_key for name, one in net.hosts.items() if name != "ada"]
                sender = decode(frame).sender  # type: ignore[attr-defined]
                wrong = [to_frame(Forwarded(key), frame.payload) for key in others if key != sender]
                return [*wrong, frame]
            return [frame]

        relay.to_node = mislabel
        await halves(net, path="relay")
        await net.node("cyd", max_blocks=4, path="relay")
        assert (await ask(net.nodes["ada"], 6)).ids == net.expected(6)


@virtual
async def test_a_swapped_dtls_fingerprint_is_impossible_and_a_guess_opens_no_channel() -> None:
    """Signals are sealed: a relay that rewrites what looks like them only spoils packets."""
    async with swarm() as net:
        relay, seen = tampering(net), 0
        pattern = re.compile(rb"fingerprint:sha-256 \S+")

        def swap(host: str, frame: Frame) -> Sequence[Frame]:
            nonlocal seen
            seen += len(pattern.findall(bytes(frame.payload)))
            return [frame]

        relay.to_node = swap
        await halves(net)
        await ask(net.nodes["ada"], 4)
        (link,) = net.nodes["ada"]._mesh.links()
        assert link.direct
        assert seen == 0


@virtual
async def test_without_any_handshake_passing_the_node_works_alone() -> None:
    async with swarm() as net:
        relay = tampering(net)

        def spoil(host: str, frame: Frame) -> Sequence[Frame]:
            if forwarded(frame) and (is_offer(frame.payload) or is_answer(frame.payload)):
                return [with_payload(frame, bytes(frame.payload[:-1]) + b"\0")]
            return [frame]

        relay.to_node = spoil
        ada = await net.node("ada", max_blocks=8)
        await net.node("bob", max_blocks=8)
        assert (await ask(ada, 6)).ids == net.expected(6)


@virtual
async def test_forged_resets_and_departures_change_no_word() -> None:
    async with swarm() as net:
        relay = tampering(net)
        await halves(net)
        ada, bob = net.nodes["ada"], net.nodes["bob"]

        def forge(seen: int) -> None:
            if seen == 3:
                relay.push("ada", with_payload(to_frame(Forwarded(key_of(bob))), RESET))
            if seen == 5:
                relay.push("ada", to_frame(Undelivered(key_of(bob), "full")))
            if seen == 7:
                relay.push("bob", with_payload(to_frame(Forwarded(key_of(ada))), RESET))

        answer = await ask(ada, 10, on_token=forge)
        assert answer.ids == net.expected(10)


@virtual
async def test_a_departure_that_is_not_true_ends_when_the_peer_announces_again() -> None:
    async with swarm() as net:
        relay = tampering(net)
        await halves(net)
        relay.push("ada", to_frame(Gone(key_of(net.nodes["bob"]))))
        await asyncio.sleep(130)
        assert (await ask(net.nodes["ada"], 4)).ids == net.expected(4)


@virtual
async def test_a_node_s_own_packets_sent_back_to_it_are_ignored() -> None:
    async with swarm() as net:
        relay = tampering(net)
        ada = await net.node("ada")
        relay.push("ada", with_payload(to_frame(Forwarded(key_of(ada))), b"\3" + bytes(40)))
        await asyncio.sleep(1)
        assert ada._mesh.links() == []


@virtual
async def test_a_flood_in_the_names_of_strangers_does_not_close_links_in_use() -> None:
    async with swarm() as net:
        relay = tampering(net)
        await halves(net)
        ada = net.nodes["ada"]
        await ask(ada, 2)
        (link,) = ada._mesh.links()
        for number in range(2000):
            stranger = Forwarded(number.to_bytes(32, "big"))
            relay.push("ada", with_payload(to_frame(stranger), b"\3" + bytes(40)))
        await asyncio.sleep(2)
        assert link in ada._mesh.links()
        assert len(ada._mesh.links()) <= 512
        assert (await ask(ada, 4)).ids == net.expected(4)
