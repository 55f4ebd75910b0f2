"""What the visitor allows, in swarms: cpu, memory, and what others are told of it."""

from __future__ import annotations

import asyncio

import pytest

from pyodide_node.budget import Reservation
from pyodide_node.config import ResourceLimits
from pyodide_node.core import KwaaiNetCore
from pyodide_node.errors import BudgetExceeded, EngineError
from pyodide_node.hosts.simulated import virtual
from pyodide_node.wire.messages import CloseSession, SessionOpened, StageError

from .hostile import opening, outsider
from .swarm import ask, swarm


def limits(**changes: int) -> ResourceLimits:
    return ResourceLimits(**{"cpu": 100, "memory": 1000, "storage": 100} | changes)


def leave(core: KwaaiNetCore, size: int) -> Reservation:
    return core.budget.reserve(core.budget.memory_free - size, "other things")


@virtual
async def test_too_little_memory_for_the_model_s_ends_says_what_to_do() -> None:
    async with swarm() as net:
        with pytest.raises(BudgetExceeded, match=r"embedding and head, .* raise memory"):
            await net.node("ada", limits=limits(memory=0))


@virtual
async def test_a_node_that_only_asks_serves_nobody() -> None:
    async with swarm() as net:
        await net.node("bob")
        ada = await net.node("ada", services=frozenset())
        answer = await ask(ada, 6)
        assert answer.ids == net.expected(6)
        assert {hop["peer"] for hop in answer.route} == {net.nodes["bob"].peer}
        assert len(net.hub.directory) == 1
        assert net.nodes["bob"].budget.cpu.used() > 0


@virtual
async def test_a_node_that_only_asks_runs_the_model_itself_when_nobody_else_does() -> None:
    async with swarm() as net:
        ada = await net.node("ada", services=frozenset())
        answer = await ask(ada, 6)
        assert answer.ids == net.expected(6)
        assert [hop["path"] for hop in answer.route] == ["local"]
        assert len(net.hub.directory) == 0


@virtual
async def test_sessions_are_refused_while_memory_is_used_up_and_taken_again_afterwards() -> None:
    async with swarm() as net, outsider(net, "mallory") as mallory:
        ada = await net.node("ada")
        leave(ada, net.model.manifest.kv_bytes(64, 8, "gpu-fp32"))
        await mallory.say(ada, opening(net, mallory.key, session=1))
        await mallory.say(ada, opening(net, mallory.key, session=2))
        (refused,) = mallory.of(StageError)
        assert refused.code == "BudgetExceeded"  # type: ignore[attr-defined]
        assert "MB are free" in refused.message  # type: ignore[attr-defined]
        await mallory.say(ada, CloseSession((1).to_bytes(16, "big")))
        await mallory.say(ada, opening(net, mallory.key, session=3))
        assert len(mallory.of(SessionOpened)) == 2


@virtual
async def test_a_node_whose_memory_is_full_asks_others() -> None:
    async with swarm() as net:
        ada = await net.node("ada")
        await net.node("bob")
        await asyncio.sleep(3)
        await ask(ada, 1)  # embedding and head are loaded by the first question
        leave(ada, 0)
        answer = await ask(ada, 6)
        assert answer.ids == net.expected(6)
        assert {hop["peer"] for hop in answer.route} == {net.nodes["bob"].peer}


@pytest.mark.parametrize("cpu", [5, 20])
def test_a_slow_machine_under_a_low_cap_is_waited_for(cpu: int) -> None:
    """It told its speed; an asker must not take it for stalled."""

    @virtual
    async def run() -> None:
        async with swarm() as net:
            ada = await net.node("ada", services=frozenset())
            net.host("bob").engine.faults.slow = 25.0
            await net.node("bob", limits=limits(cpu=cpu))
            await asyncio.sleep(3)
            answer = await ask(ada, 6)
            assert answer.ids == net.expected(6)
            assert answer.reroutes == 0

    run()


@virtual
async def test_serving_stays_under_the_cpu_cap() -> None:
    async with swarm() as net:
        ada = await net.node("ada", services=frozenset())
        bob = await net.node("bob", limits=limits(cpu=20))
        await asyncio.sleep(3)
        begun, before = asyncio.get_running_loop().time(), net.hosts["bob"].engine.positions
        while asyncio.get_running_loop().time() < begun + 60:
            await ask(ada, 12)
        spent = asyncio.get_running_loop().time() - begun
        worked = (net.hosts["bob"].engine.positions - before) * net.hosts["bob"].engine.seconds
        assert 0.15 < worked / spent <= 0.2 + 0.01
        assert bob.budget.cpu.used() <= 25


@virtual
async def test_new_caps_show_and_hold_at_once() -> None:
    async with swarm() as net:
        ada = await net.node("ada")
        ada.set_limits(limits(cpu=7, memory=900, storage=3))
        budget = (await ada.status())["budget"]
        assert (budget["cpu"]["limit"], budget["memory"]["limit"]) == (7, 900)
        assert budget["storage"]["limit"] == 3


def held(node: KwaaiNetCore) -> int:
    span = node._work.holding.span if node._work else None
    return span[1] - span[0] if span else 0


@virtual
async def test_a_cap_with_room_for_nothing_leaves_nothing_until_it_is_turned_up() -> None:
    async with swarm() as net:
        ada = await net.node("ada")
        ada.budget.reserve(64_000_000, "other things")
        ada.set_limits(limits(memory=64))
        await asyncio.sleep(0.5)
        assert held(ada) == 0
        assert "memory cap" in (await ada.status())["problem"]
        ada.set_limits(limits(memory=1000))
        await asyncio.sleep(0.5)
        assert held(ada) == 8
        assert (await ask(ada)).ids == net.expected(12)


@virtual
async def test_a_cpu_cap_turned_down_is_announced() -> None:
    async with swarm() as net:
        ada = await net.node("ada")
        await net.covered()
        (before,) = net.hub.directory
        ada.set_limits(limits(cpu=10))
        await asyncio.sleep(0.5)
        (after,) = net.hub.directory
        assert after.announcement.throughput == pytest.approx(before.announcement.throughput / 10)


@virtual
async def test_an_engine_with_no_room_for_a_cache_refuses_the_session_and_keeps_no_memory() -> None:
    async with swarm() as net, outsider(net, "mallory") as mallory:
        ada = await net.node("ada")
        work = ada._work
        assert work is not None
        span = work.holding.find(0, 8)
        used = ada.budget.memory_used

        def refuse(first: int, last: int, capacity: int) -> None:
            raise EngineError("out of device memory")

        span.open_cache = refuse  # type: ignore[method-assign, union-attr, assignment]
        await mallory.say(ada, opening(net, mallory.key))
        (refused,) = mallory.of(StageError)
        assert (refused.code, refused.message) == ("engine", "out of device memory")  # type: ignore[attr-defined]
        assert ada.budget.memory_used == used
