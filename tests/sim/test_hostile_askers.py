"""What a stage may be sent by those who mean ill: a refusal or nothing, and no other is harmed."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from pyodide_node.hosts.simulated import virtual
from pyodide_node.wire import limits
from pyodide_node.wire.messages import (
    CloseSession,
    Result,
    SessionOpened,
    StageError,
    StageReport,
    Step,
    Subscribe,
)

from .hostile import Outsider, key_of, opening, outsider, serving_of
from .swarm import Swarm, ask, swarm

ONE = (1).to_bytes(16, "big")


def hidden(net: Swarm, count: int = 1, value: float = 0.5) -> bytes:
    return np.full((count, net.model.manifest.hidden_size), value, "<f4").tobytes()


def errors(who: Outsider) -> list[str]:
    return [one.code for one in who.of(StageError)]  # type: ignore[attr-defined]


async def still_serves(net: Swarm, name: str = "ada") -> None:
    assert (await ask(net.nodes[name], 4)).ids == net.expected(4)


@virtual
async def test_a_session_fed_as_agreed_gives_results() -> None:
    """What the rest of this file departs from."""
    async with swarm() as net, outsider(net, "mallory") as mallory:
        ada = await net.node("ada")
        await mallory.say(ada, opening(net, mallory.key))
        await mallory.say(ada, Step(ONE, 0, 0, 3), hidden(net, 3))
        assert [message for _, message, _ in mallory.got if not isinstance(message, StageReport)][
            -2:
        ] == [SessionOpened(ONE, 0), Result(ONE, 2)]


@pytest.mark.parametrize(
    ("step", "count", "value", "code"),
    [
        (Step(ONE, 0, 0, 2), 1, 0.5, "ProtocolError"),
        (Step(ONE, 0, 0, 1), 0, 0.5, "ProtocolError"),
        (Step(ONE, 0, 0, 1), 1, float("nan"), "ProtocolError"),
        (Step(ONE, 0, 0, 1), 1, float("inf"), "ProtocolError"),
        (Step(ONE, 0, 5, 1), 1, 0.5, "gap"),
        (Step(ONE, 0, limits.POSITIONS - 1, 1), 1, 0.5, "gap"),
        (Step(ONE, 0, 0, 65), 65, 0.5, "full"),
        (Step(ONE, 1, 0, 1), 1, 0.5, "closed"),
        (Step(bytes(16), 0, 0, 1), 1, 0.5, "closed"),
    ],
    ids=["short", "empty", "nan", "infinite", "gap", "far", "full", "other hop", "unknown"],
)
def test_a_step_that_is_wrong_is_refused_and_the_session_goes_on(
    step: Step, count: int, value: float, code: str
) -> None:
    @virtual
    async def run() -> None:
        async with swarm() as net, outsider(net, "mallory") as mallory:
            ada = await net.node("ada")
            await mallory.say(ada, opening(net, mallory.key))
            await mallory.say(ada, step, hidden(net, count, value))
            assert errors(mallory) == [code]
            assert mallory.of(Result) == []
            await mallory.say(ada, Step(ONE, 0, 0, 1), hidden(net))
            assert mallory.of(Result) == [Result(ONE, 0)]
            await still_serves(net)

    run()


@virtual
async def test_steps_for_another_s_session_touch_neither_it_nor_its_asker() -> None:
    async with (
        swarm() as net,
        outsider(net, "victim") as victim,
        outsider(net, "mallory") as mallory,
    ):
        ada = await net.node("ada")
        await victim.say(ada, opening(net, victim.key))
        await mallory.say(ada, Step(ONE, 0, 0, 1), hidden(net))
        await mallory.say(ada, CloseSession(ONE))
        assert errors(mallory) == ["ProtocolError"]
        assert errors(victim) == []
        assert victim.of(Result) == []
        await victim.say(ada, Step(ONE, 0, 0, 1), hidden(net))
        assert victim.of(Result) == [Result(ONE, 0)]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"model": bytes(32)}, "model"),
        ({"last": 9}, "moved"),
        ({"first": 8, "last": 8}, "moved"),
        ({"first": 4, "last": 2}, "moved"),
        ({"capacity": 513}, "moved"),
    ],
    ids=["model", "beyond", "empty", "backwards", "context"],
)
def test_an_opening_of_what_is_not_served_is_refused(changes: dict[str, object], code: str) -> None:
    @virtual
    async def run() -> None:
        async with swarm() as net, outsider(net, "mallory") as mallory:
            ada = await net.node("ada")
            await mallory.say(ada, opening(net, mallory.key, **changes))
            assert errors(mallory) == [code]
            assert not serving_of(ada).busy
            await still_serves(net)

    run()


@virtual
async def test_a_session_is_opened_once() -> None:
    async with swarm() as net, outsider(net, "mallory") as mallory:
        ada = await net.node("ada")
        for _ in range(2):
            await mallory.say(ada, opening(net, mallory.key))
        assert len(mallory.of(SessionOpened)) == 1
        assert errors(mallory) == ["open"]


@virtual
async def test_a_flood_of_openings_is_refused_and_leaves_room_for_others() -> None:
    async with swarm() as net, outsider(net, "mallory") as mallory:
        ada = await net.node("ada")
        used = ada.budget.memory_used
        for number in range(1000):
            mallory.mesh.send(key_of(ada), opening(net, mallory.key, session=number))
        await asyncio.sleep(2)
        assert len(mallory.of(SessionOpened)) == limits.SESSIONS_PER_PEER
        assert errors(mallory) == ["busy"] * (1000 - limits.SESSIONS_PER_PEER)
        await still_serves(net)
        await mallory.mesh.close()
        await asyncio.sleep(400)
        assert not serving_of(ada).busy
        assert ada.budget.memory_used == used


@virtual
async def test_sessions_that_are_not_used_give_their_memory_back() -> None:
    async with swarm() as net, outsider(net, "mallory") as mallory:
        ada = await net.node("ada")
        used = ada.budget.memory_used
        await mallory.say(ada, opening(net, mallory.key))
        assert ada.budget.memory_used > used
        await asyncio.sleep(400)
        assert ada.budget.memory_used == used
        await mallory.say(ada, Step(ONE, 0, 0, 1), hidden(net))
        assert errors(mallory) == ["closed"]


@virtual
async def test_a_flood_of_steps_is_bounded_and_answers_to_others_still_come() -> None:
    async with swarm() as net, outsider(net, "mallory") as mallory:
        ada = await net.node("ada")
        await mallory.say(ada, opening(net, mallory.key))
        for _ in range(200):
            mallory.mesh.send(key_of(ada), Step(ONE, 0, 0, 1), hidden(net))
        await asyncio.sleep(0.1)
        await still_serves(net)
        await asyncio.sleep(2)
        assert "flooded" in errors(mallory)
        assert len(mallory.of(Result)) >= limits.QUEUED_STEPS


@virtual
async def test_messages_that_only_relays_and_askers_get_are_ignored_by_a_stage() -> None:
    async with swarm() as net, outsider(net, "mallory") as mallory:
        ada = await net.node("ada")
        for message in (
            Subscribe(bytes(32)),
            Result(ONE, 0),
            SessionOpened(ONE, 255),
            StageError(ONE, 255, "x", "y"),
            StageReport(ONE, 255, "relay", 1.0),
        ):
            await mallory.say(ada, message, hidden(net))
        assert mallory.got == []
        await still_serves(net)
