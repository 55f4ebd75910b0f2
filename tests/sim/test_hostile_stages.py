"""Stages that lie, stall or boast: they cost an answer a detour, never a word."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from pyodide_node.hosts.simulated import virtual
from pyodide_node.wire.messages import (
    Message,
    OpenSession,
    Result,
    SessionOpened,
    StageError,
    StageReport,
    Step,
)

from .hostile import Outsider, outsider
from .swarm import Swarm, ask, swarm

SEED = 1
"""With it ada takes the first half of the blocks."""


async def half_and_liar(net: Swarm, mallory: Outsider) -> None:
    """ada holds the first half, the liar says that it has the second, and so has honest bob."""
    await net.node("ada", max_blocks=4)
    await net.node("bob", max_blocks=4)
    await net.covered()
    assert net.nodes["ada"]._work.holding.span == (0, 4)  # type: ignore[union-attr]
    # A little faster, so that it is asked first; not so much that bob would move away.
    await mallory.announces(net.model.manifest.model_id, 4, 8, 1100.0)


def opens_and(*replies: object) -> object:
    """An outsider that opens every session, and on each step says `replies`."""

    def answer(me: Outsider, peer: bytes, message: Message) -> None:
        match message:
            case OpenSession(session, hop):
                me.mesh.send(peer, SessionOpened(session, hop))
            case Step(session, hop, position, count):
                for reply in replies:
                    reply(me, peer, session, hop, position + count - 1)  # type: ignore[operator]

    return answer


def silence(me: Outsider, peer: bytes, session: bytes, hop: int, last: int) -> None:
    pass


def nan_result(me: Outsider, peer: bytes, session: bytes, hop: int, last: int) -> None:
    me.mesh.send(peer, Result(session, last), np.full(32, np.nan, "<f4").tobytes())


def short_result(me: Outsider, peer: bytes, session: bytes, hop: int, last: int) -> None:
    me.mesh.send(peer, Result(session, last), bytes(4))


def other_positions(me: Outsider, peer: bytes, session: bytes, hop: int, last: int) -> None:
    for position in range(1000):
        me.mesh.send(peer, Result(session, last + 1 + position), bytes(128))


def engine_error(me: Outsider, peer: bytes, session: bytes, hop: int, last: int) -> None:
    me.mesh.send(peer, StageError(session, hop, "EngineError", "x" * 1000))


def wrong_hops(me: Outsider, peer: bytes, session: bytes, hop: int, last: int) -> None:
    for wrong in (0, 1, 255):
        if wrong != hop:
            me.mesh.send(peer, StageError(session, wrong, "x", "y"))
            me.mesh.send(peer, SessionOpened(session, wrong))
            me.mesh.send(peer, StageReport(session, wrong, "relay", 1.0))


@pytest.mark.parametrize(
    "trick",
    [silence, nan_result, short_result, other_positions, engine_error, wrong_hops],
)
def test_a_stage_that_lies_or_stalls_changes_no_word(trick: object) -> None:
    @virtual
    async def run() -> None:
        async with (
            swarm(seed=SEED) as net,
            outsider(net, "mallory", opens_and(trick)) as mallory,  # type: ignore[arg-type]
        ):
            await half_and_liar(net, mallory)
            answer = await ask(net.nodes["ada"], 6)
            assert mallory.of(Step)
            assert answer.ids == net.expected(6)
            assert answer.reroutes == 1

    run()


@virtual
async def test_results_for_positions_never_asked_take_no_memory() -> None:
    async with (
        swarm(seed=SEED) as net,
        outsider(net, "mallory", opens_and(other_positions)) as mallory,  # type: ignore[arg-type]
    ):
        await half_and_liar(net, mallory)
        task = asyncio.ensure_future(ask(net.nodes["ada"], 6))
        await asyncio.sleep(2)
        assert mallory.of(Step)
        (session,) = net.nodes["ada"]._work.asker._sessions.values()  # type: ignore[union-attr]
        assert len(session._results) == 0
        await task


@virtual
async def test_a_stage_that_never_opens_is_passed_over_by_its_deadline() -> None:
    async with swarm(seed=SEED) as net, outsider(net, "mallory") as mallory:
        await half_and_liar(net, mallory)
        answer = await ask(net.nodes["ada"], 6)
        assert mallory.of(OpenSession)
        assert answer.ids == net.expected(6)


def says_moved(me: Outsider, peer: bytes, message: Message) -> None:
    if isinstance(message, OpenSession):
        me.mesh.send(peer, StageError(message.session, message.hop, "moved", "elsewhere"))


@virtual
async def test_a_stage_that_always_says_it_moved_is_passed_over() -> None:
    async with swarm(seed=SEED) as net, outsider(net, "mallory", says_moved) as mallory:
        await half_and_liar(net, mallory)
        answer = await ask(net.nodes["ada"], 6)
        assert mallory.of(OpenSession)
        assert answer.ids == net.expected(6)


def feeds_nan(me: Outsider, peer: bytes, message: Message) -> None:
    match message:
        case OpenSession(session, hop):
            me.next = message.next
            me.mesh.send(peer, SessionOpened(session, hop))
        case Step(session, hop, position, count):
            bad = np.full((count, 32), np.nan, "<f4").tobytes()
            me.mesh.send(me.next, Step(session, hop + 1, position, count), bad)


@virtual
async def test_a_stage_that_was_fed_rubbish_is_not_taken_for_the_liar() -> None:
    async with swarm() as net, outsider(net, "mallory", feeds_nan) as mallory:
        ada = await net.node("ada", services=frozenset())
        for name in ("bob", "cyd", "dan", "eve"):
            await net.node(name, max_blocks=4)
        await net.covered()
        await mallory.announces(net.model.manifest.model_id, 0, 4, 1100.0)
        begun = asyncio.get_running_loop().time()
        answer = await ask(ada, 4)
        assert mallory.of(Step)
        assert answer.ids == net.expected(4)
        assert answer.reroutes == 1
        assert asyncio.get_running_loop().time() - begun < 5


# --- what a node is told of others --------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "last", "speed"), [(0, 8, 1e-3), (0, 1024, 1e8), (1000, 1024, 1e8)]
)
def test_an_announcement_that_makes_no_sense_sways_nobody(
    first: int, last: int, speed: float
) -> None:
    @virtual
    async def run() -> None:
        async with swarm() as net, outsider(net, "mallory") as mallory:
            await mallory.announces(net.model.manifest.model_id, first, last, speed)
            await net.node("ada", max_blocks=4)
            await net.node("bob", max_blocks=4)
            await asyncio.wait_for(net.covered(), 20)
            assert (await ask(net.nodes["ada"], 6)).ids == net.expected(6)

    run()


@virtual
async def test_an_announcement_of_more_blocks_than_there_are_does_not_hide_what_is_missing() -> (
    None
):
    async with swarm() as net, outsider(net, "mallory") as mallory:
        ada = await net.node("ada")
        await mallory.announces(net.model.manifest.model_id, 0, 1024)
        work = ada._work
        assert work is not None
        await work.holding.unload()
        await work.holding.load(0, 4)
        assert (await ask(ada, 6)).ids == net.expected(6)
