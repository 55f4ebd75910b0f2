"""Nodes that find their places: all blocks served, nobody wandering, moves that fail undone."""

from __future__ import annotations

import asyncio

import pytest

from pyodide_node.hosts.simulated import virtual

from .swarm import SOURCE, Swarm, ask, swarm


def spans(net: Swarm) -> dict[str, tuple[int, int] | None]:
    return {name: core._work.holding.span for name, core in net.nodes.items() if core._work}


async def open_blocks(net: Swarm) -> set[int]:
    held = [span for span in spans(net).values() if span]
    return set(range(net.model.manifest.blocks)) - {b for s in held for b in range(*s)}


@pytest.mark.parametrize("count", [4, 9])
def test_any_number_of_nodes_at_once_cover_the_model_and_then_stay(count: int) -> None:
    @virtual
    async def run() -> None:
        async with swarm() as net:
            await asyncio.gather(
                *(net.node(f"node{number}", max_blocks=3) for number in range(count))
            )
            await asyncio.wait_for(net.covered(), 60)
            await asyncio.sleep(60)
            before = spans(net)
            await asyncio.sleep(600)
            assert spans(net) == before

    run()


@virtual
async def test_blocks_whose_only_node_leaves_are_taken_over() -> None:
    async with swarm() as net:
        for name in ("ada", "bob", "cyd", "dan"):
            await net.node(name, max_blocks=4)
        await net.covered()
        await asyncio.sleep(10)
        lost = [name for name, span in spans(net).items() if span == (4, 8)]
        for name in lost:
            net.kill(name)
            await net.nodes.pop(name).close()
        await asyncio.sleep(20)
        assert await open_blocks(net) == set()


@virtual
async def test_a_node_with_a_session_open_does_not_move_away_from_it() -> None:
    async with swarm(seed=1) as net:
        ada = await net.node("ada", max_blocks=4)
        bob = await net.node("bob", max_blocks=4)
        await net.covered()
        before = spans(net)

        async def newcomers(seen: int) -> None:
            await asyncio.gather(*(net.node(f"new{n}", max_blocks=4) for n in range(4)))

        tasks: list[asyncio.Task[None]] = []

        def come(seen: int) -> None:
            if not tasks:
                tasks.append(asyncio.ensure_future(newcomers(seen)))

        answer = await ask(ada, 100, on_token=come)
        await tasks[0]
        assert answer.reroutes == 0
        assert spans(net)["ada"] == before["ada"]
        assert spans(net)["bob"] == before["bob"]
        assert bob.peer in {hop["peer"] for hop in answer.route}


@virtual
async def test_a_move_whose_files_cannot_be_fetched_is_tried_until_it_succeeds() -> None:
    async with swarm() as net:
        for name in ("ada", "bob", "cyd"):
            await net.node(name, max_blocks=4)
        await net.covered()
        await asyncio.sleep(10)
        held = spans(net)
        alone = next(name for name, span in held.items() if list(held.values()).count(span) == 1)
        spare = [name for name in held if name != alone]
        blobs = f"{SOURCE}{net.model.manifest.name}/blobs/"
        missing = {blobs + layer.sha256 for layer in net.model.manifest.layers}
        for name in spare:
            net.hosts[name].store.faults.unreachable |= missing
        net.kill(alone)
        await net.nodes.pop(alone).close()
        await asyncio.sleep(20)
        assert await open_blocks(net)
        for name in spare:
            net.hosts[name].store.faults.unreachable.clear()
        await asyncio.sleep(60)
        assert await open_blocks(net) == set()


@virtual
async def test_while_a_node_moves_answers_go_by_others() -> None:
    """Its announcement is old until it has loaded; being refused by it must cost no answer."""
    async with swarm() as net:
        for name in ("ada", "bob", "cyd", "dan"):
            await net.node(name, max_blocks=4)
        await net.covered()
        await asyncio.sleep(10)
        ada = net.nodes["ada"]
        mine = spans(net)["ada"]
        mover = next(name for name, span in spans(net).items() if span != mine)
        work = net.nodes[mover]._work
        assert work is not None
        await work.holding.unload()
        answer = await ask(ada, 6)
        assert answer.ids == net.expected(6)
        assert net.nodes[mover].peer not in {hop["peer"] for hop in answer.route}
