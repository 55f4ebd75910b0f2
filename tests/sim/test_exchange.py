"""Nodes give each other the model's files: who starts later, together, alone, among liars."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pyodide_node.config import ResourceLimits
from pyodide_node.core import KwaaiNetCore
from pyodide_node.delivery.parts import Parts
from pyodide_node.hosts.simulated import simulated_model, virtual
from pyodide_node.mesh.mesh import Mesh
from pyodide_node.wire.messages import (
    Message,
    PartRefused,
    PartRequest,
    PartsHeld,
    PartSlice,
    PartsQuery,
)

from .hostile import Outsider, outsider
from .swarm import SOURCE, Swarm, ask, swarm

WIDE = 512
"""Hidden size at which a layer's file has more than one piece."""

BITMAP = (Parts(simulated_model(blocks=4, hidden_size=WIDE).manifest).count + 7) // 8
EVERYTHING, NOTHING = b"\xff" * BITMAP, bytes(BITMAP)

LIMITS = ResourceLimits(cpu=100, memory=2000, storage=100)


def from_relay(net: Swarm, *names: str) -> int:
    """Bytes of model files that web servers sent to these nodes, or to all."""
    hosts = [net.hosts[name] for name in names or net.hosts]
    return sum(sum(host.store.served.values()) for host in hosts)


def layers(net: Swarm) -> int:
    return sum(blob.bytes for blob in net.model.manifest.layers)


async def sources(core: KwaaiNetCore) -> dict[str, int]:
    status = await core.status()
    return dict(status["sources"])


@virtual
async def test_who_comes_later_is_given_the_files_by_who_is_there() -> None:
    async with swarm(blocks=4, hidden_size=WIDE) as net:
        ada = await net.node("ada", limits=LIMITS)
        bob = await net.node("bob", limits=LIMITS)
        assert (await sources(bob))["peers"] >= layers(net)
        assert from_relay(net, "bob") < 10_000
        status = await ada.status()
        assert status["seeded"] == (await sources(bob))["peers"]
        assert (await ask(bob, 6)).ids == net.expected(6)


@virtual
async def test_five_that_start_almost_together_fetch_each_byte_once_and_swap() -> None:
    async with swarm(blocks=12, hidden_size=WIDE) as net:

        async def start(number: int) -> None:
            await asyncio.sleep(0.1 * number)
            await net.node(f"node {number}", limits=LIMITS)

        await asyncio.gather(*(start(number) for number in range(5)))
        assert from_relay(net) < 2 * layers(net)
        for core in net.nodes.values():
            assert sum((await sources(core)).values()) >= layers(net)


@virtual
async def test_nothing_goes_through_the_relay_where_there_is_no_direct_path() -> None:
    async with swarm(blocks=4, hidden_size=WIDE) as net:
        await net.node("ada", limits=LIMITS)
        net.network.block_webrtc("bob")
        bob = await net.node("bob", limits=LIMITS)
        assert (await sources(bob))["peers"] == 0
        assert from_relay(net, "bob") >= layers(net)


@virtual
async def test_who_gives_no_upload_gives_no_files() -> None:
    async with swarm(blocks=4, hidden_size=WIDE) as net:
        ada = await net.node("ada", limits=LIMITS, upload=0)
        bob = await net.node("bob", limits=LIMITS)
        assert (await sources(bob))["peers"] == 0
        assert (await ada.status())["seeded"] == 0


@virtual
async def test_upload_stays_under_its_share() -> None:
    async with swarm(blocks=8, hidden_size=WIDE) as net:
        await net.node("ada", limits=LIMITS, upload=0.5)
        del net.network.web[f"{SOURCE}{net.model.manifest.name}/blobs/{layer(net)}"]
        begun = asyncio.get_running_loop().time()
        bob = await net.node("bob", limits=LIMITS)
        spent = asyncio.get_running_loop().time() - begun
        assert (await sources(bob))["peers"] <= 0.5e6 * (spent + 1)
        assert (await sources(bob))["peers"] > 0


def layer(net: Swarm, index: int = 0) -> str:
    return net.model.manifest.layers[index].sha256


@virtual
async def test_what_no_web_server_has_any_more_comes_from_peers() -> None:
    async with swarm(blocks=4, hidden_size=WIDE) as net:
        await net.node("ada", limits=LIMITS)
        for url in [url for url in net.network.web if "/blobs/" in url]:
            del net.network.web[url]
        bob = await net.node("bob", limits=LIMITS)
        assert (await sources(bob))["mirrors"] == 0
        assert bob._work is not None
        assert bob._work.holding.span == (0, 4)


@virtual
async def test_a_giver_that_leaves_midway_is_done_without() -> None:
    async with swarm(blocks=8, hidden_size=WIDE) as net:
        await net.node("ada", limits=LIMITS, upload=1)
        asyncio.get_running_loop().call_later(3.0, net.kill, "ada")
        bob = await net.node("bob", limits=LIMITS)
        came = await sources(bob)
        assert came["peers"] > 0
        assert came["mirrors"] > 0
        assert sum(came.values()) <= layers(net) + 100_000


Answer = Callable[[Outsider, bytes, Message], None]


def answering(slices: Callable[[PartRequest], list[tuple[Message, bytes]]]) -> Answer:
    """Claims to have everything; answers requests with what `slices` makes of them."""

    def answer(self: Outsider, peer: bytes, message: Message) -> None:
        if isinstance(message, PartsQuery):
            held = PartsHeld(message.model)
            self.mesh.send(peer, held, EVERYTHING + NOTHING, background=True)
        elif isinstance(message, PartRequest):
            for said, payload in slices(message):
                self.mesh.send(peer, said, payload, background=True)

    return answer


LIARS: dict[str, Callable[[PartRequest], list[tuple[Message, bytes]]]] = {
    "wrong bytes": lambda asked: [(PartSlice(asked.token), bytes(asked.length))],
    "too few": lambda asked: [(PartSlice(asked.token), bytes(asked.length - 1))],
    "silent": lambda asked: [],
    "always busy": lambda asked: [(PartRefused(asked.token, "busy"), b"")],
    "another token": lambda asked: [(PartSlice(asked.token + 1000), bytes(asked.length))],
    "twice": lambda asked: [(PartSlice(asked.token), bytes(asked.length))] * 2,
}


@pytest.mark.parametrize("slices", LIARS.values(), ids=LIARS.keys())
def test_a_peer_that_lies_or_stalls_is_dropped_and_the_fetch_goes_on(slices: Any) -> None:
    @virtual
    async def run() -> None:
        async with (
            swarm(blocks=4, hidden_size=WIDE) as net,
            outsider(net, "mallory", answering(slices)) as mallory,
        ):
            await mallory.announces(net.model.manifest.model_id, 0, 4, 1.0)
            ada = await net.node("ada", limits=LIMITS)
            assert mallory.of(PartRequest)
            assert (await sources(ada))["peers"] == 0
            assert (await sources(ada))["mirrors"] >= layers(net)
            assert ada._work is not None
            assert ada._work.holding.span == (0, 4)

    run()


@virtual
async def test_who_says_to_be_fetching_everything_holds_nobody_up_for_long() -> None:
    def answer(self: Outsider, peer: bytes, message: Message) -> None:
        if isinstance(message, PartsQuery):
            held = PartsHeld(message.model)
            self.mesh.send(peer, held, NOTHING + EVERYTHING, background=True)

    async with (
        swarm(blocks=4, hidden_size=WIDE) as net,
        outsider(net, "mallory", answer) as mallory,
    ):
        await mallory.announces(net.model.manifest.model_id, 0, 4, 1.0)
        begun = asyncio.get_running_loop().time()
        ada = await net.node("ada", limits=LIMITS)
        assert mallory.of(PartsQuery)
        assert asyncio.get_running_loop().time() - begun < 10
        assert (await sources(ada))["mirrors"] >= layers(net)


@pytest.mark.parametrize("bitmaps", [b"", b"\xff", EVERYTHING, EVERYTHING * 3, bytes(1 << 20)])
def test_bitmaps_that_are_not_of_this_model_are_ignored(bitmaps: bytes) -> None:
    def answer(self: Outsider, peer: bytes, message: Message) -> None:
        if isinstance(message, PartsQuery):
            self.mesh.send(peer, PartsHeld(message.model), bitmaps, background=True)

    @virtual
    async def run() -> None:
        async with (
            swarm(blocks=4, hidden_size=WIDE) as net,
            outsider(net, "mallory", answer) as mallory,
        ):
            await mallory.announces(net.model.manifest.model_id, 0, 4, 1.0)
            ada = await net.node("ada", limits=LIMITS)
            assert mallory.of(PartsQuery)
            assert not mallory.of(PartRequest)
            assert (await sources(ada))["mirrors"] >= layers(net)

    run()


async def connected(mallory: Outsider, ada: KwaaiNetCore) -> bytes:
    key = ada._host.keys.public_key
    link = mallory.mesh.link(key)
    link.warm()
    assert await link.direct_open(5)
    return key


@virtual
async def test_strange_requests_are_refused_and_floods_bounded() -> None:
    async with swarm(blocks=4, hidden_size=WIDE) as net, outsider(net, "mallory") as mallory:
        ada = await net.node("ada", limits=LIMITS)
        key = await connected(mallory, ada)
        model = bytes.fromhex(net.model.manifest.model_id)
        strange = [
            PartRequest(1, model, 2**24 - 1, 0, 1),
            PartRequest(2, bytes(32), 0, 0, 1),
            PartRequest(3, model, 2, (1 << 22) - 1, 1),
        ]
        for request in strange:
            mallory.mesh.send(key, request, background=True)
        await asyncio.sleep(1)
        assert {said.token for said in mallory.of(PartRefused)} == {1, 2, 3}  # type: ignore[attr-defined]
        for token in range(100, 200):
            asked = PartRequest(token, model, 1, 0, 1)
            mallory.mesh.send(key, asked, background=True)
        await asyncio.sleep(2)
        answered = len(mallory.of(PartSlice)) + len(mallory.of(PartRefused)) - 3
        assert answered == 100


@virtual
async def test_an_answer_goes_on_at_its_pace_while_files_are_given() -> None:
    async with swarm(blocks=8, hidden_size=WIDE) as net:
        await net.node("ada", limits=LIMITS)
        asker = await net.node("asker", services=frozenset(), limits=LIMITS)
        await asyncio.sleep(3)
        await ask(asker, 2)
        alone = (await ask(asker, 12)).decode_tok_s
        joining = asyncio.ensure_future(net.node("bob", limits=LIMITS))
        await asyncio.sleep(1)
        busy = (await ask(asker, 12)).decode_tok_s
        await joining
        assert busy > 0.7 * alone


# --- what is kept -------------------------------------------------------------------------


@virtual
async def test_who_is_over_a_lower_cap_evicts_at_once_and_says_so() -> None:
    async with swarm(blocks=4, hidden_size=WIDE) as net:
        ada = await net.node("ada", limits=LIMITS)
        await net.covered()
        await asyncio.sleep(0.5)
        (entry,) = net.hub.directory
        assert entry.announcement.seeds == [(0, 4)]
        ada.set_limits(ResourceLimits(cpu=100, memory=2000, storage=3))
        await asyncio.sleep(0.5)
        assert sum((await net.hosts["ada"].store.held()).values()) <= 3_000_000
        (entry,) = net.hub.directory
        assert (entry.announcement.first, entry.announcement.last) == (0, 4)
        kept = sum(last - first for first, last in entry.announcement.seeds)
        assert kept < 4
        ada.set_limits(ResourceLimits(cpu=100, memory=2000, storage=0))
        await asyncio.sleep(0.5)
        assert await net.hosts["ada"].store.held() == {}
        bob = await net.node("bob", limits=LIMITS)
        assert (await sources(bob))["peers"] == 0


def members(mesh: Mesh, model: str) -> int:
    return len(mesh.members(bytes.fromhex(model)))


@virtual
async def test_who_is_still_fetching_is_known_but_not_asked_to_compute() -> None:
    async with swarm(blocks=4, hidden_size=WIDE) as net, outsider(net, "cyd") as cyd:
        model = net.model.manifest.model_id
        await cyd.announces(model, 0, 0, 1e-3)
        ada = await net.node("ada", limits=LIMITS)
        assert members(ada._mesh, model) == 1
        assert ada._mesh.entries(bytes.fromhex(model)) == []
        assert (await ask(ada, 4)).ids == net.expected(4)
