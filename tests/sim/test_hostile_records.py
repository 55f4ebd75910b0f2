"""Announcements that a malicious relay invents, keeps or mixes up: not believed, and bounded."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from pyodide_node.hosts.simulated import SimulatedHost, simulated_host, virtual
from pyodide_node.mesh.announcement import Announcement, announce
from pyodide_node.wire.messages import (
    Forward,
    Records,
    to_frame,
)

from .hostile import Tampering, tampering
from .swarm import Swarm, ask, swarm


async def record(net: Swarm, host: SimulatedHost, now: float, **changes: object) -> bytes:
    said = Announcement(
        bytes.fromhex(net.model.manifest.model_id), 0, 8, 1e6, "simulated", "simulated", 1 << 20
    )
    return await announce(host.keys, msgspec.structs.replace(said, **changes), now)


async def hears_only(net: Swarm, relay: Tampering, pushed: bytes, heard: bool) -> None:
    ada = net.nodes["ada"]
    relay.push("ada", to_frame(Records([pushed])))
    await asyncio.sleep(0.015)  # soon the relay would say that nobody of that name is here
    model = bytes.fromhex(net.model.manifest.model_id)
    assert bool(ada._mesh.entries(model)) == heard
    assert (await ask(ada, 4)).ids == net.expected(4)


@pytest.mark.parametrize(
    ("age", "heard"), [(0, True), (-100, True), (-150, False), (100, True), (331, False)]
)
def test_announcements_expired_or_of_the_future_are_not_believed(age: float, heard: bool) -> None:
    @virtual
    async def run() -> None:
        async with swarm() as net:
            relay = tampering(net)
            ada = await net.node("ada")
            eve = simulated_host(net.network, "eve")
            now = net.hosts["ada"].clock.wall()
            # The one heard of claims no room, so that ada has nothing to ask it for.
            await hears_only(net, relay, await record(net, eve, now - age, free_positions=0), heard)
            assert ada.state == "ready"

    run()


@virtual
async def test_forged_announcements_are_not_believed() -> None:
    async with swarm() as net:
        relay = tampering(net)
        await net.node("ada")
        eve = simulated_host(net.network, "eve")
        good = await record(net, eve, net.hosts["ada"].clock.wall())
        for position in (0, 70, len(good) - 1):
            forged = bytearray(good)
            forged[position] ^= 1
            await hears_only(net, relay, bytes(forged), False)
        await hears_only(net, relay, b"", False)
        await hears_only(net, relay, bytes(2000), False)


@virtual
async def test_announcements_of_another_model_are_not_asked() -> None:
    async with swarm() as net:
        relay = tampering(net)
        await net.node("ada")
        eve = simulated_host(net.network, "eve")
        now = net.hosts["ada"].clock.wall()
        await hears_only(net, relay, await record(net, eve, now, model=bytes(32)), False)


@virtual
async def test_an_older_announcement_does_not_undo_a_newer_one() -> None:
    async with swarm() as net:
        relay = tampering(net)
        ada = await net.node("ada")
        eve = simulated_host(net.network, "eve")
        now = net.hosts["ada"].clock.wall()
        new, old = await record(net, eve, now, last=2), await record(net, eve, now - 60, last=8)
        relay.push("ada", to_frame(Records([new, old])))
        await asyncio.sleep(0.015)
        entry = ada._mesh.directory.get(eve.keys.public_key)
        assert entry is not None
        assert entry.announcement.last == 2


@virtual
async def test_a_node_s_own_announcement_sent_back_is_not_another_node() -> None:
    async with swarm() as net:
        relay = tampering(net)
        ada = await net.node("ada", max_blocks=4)
        await asyncio.sleep(1)
        (entry,) = list(net.hub.directory)
        relay.push("ada", to_frame(Records([entry.signed])))
        await asyncio.sleep(1)
        assert ada._mesh.entries(bytes.fromhex(net.model.manifest.model_id)) == []


@virtual
async def test_a_flood_of_announcements_is_bounded() -> None:
    async with swarm() as net:
        relay = tampering(net)
        ada = await net.node("ada")
        for _ in range(1000):
            relay.push("ada", to_frame(Records([bytes(600)] * 25)))
        await asyncio.sleep(0.02)
        assert ada._mesh._unverified.qsize() <= 10_000
        await asyncio.sleep(5)
        assert (await ask(ada, 4)).ids == net.expected(4)


@virtual
async def test_messages_that_a_relay_does_not_send_are_ignored() -> None:
    async with swarm() as net:
        relay = tampering(net)
        ada = await net.node("ada")
        relay.push("ada", to_frame(Forward(bytes(32)), b"x"))
        await asyncio.sleep(1)
        assert ada._mesh.connected
