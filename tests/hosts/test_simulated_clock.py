"""The loop whose time jumps."""

from __future__ import annotations

import asyncio
import time

import pytest

from pyodide_node.hosts.simulated import Deadlock, SimulatedClock, run_virtual, virtual


def test_a_day_takes_no_time() -> None:
    async def main() -> float:
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time()

    started = time.monotonic()
    assert run_virtual(main()) == 86_400
    assert time.monotonic() - started < 5


@virtual
async def test_timeouts_are_exact() -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5):
            await asyncio.Event().wait()
    assert loop.time() == 1.5


@virtual
async def test_timers_fire_in_their_order() -> None:
    fired: list[float] = []

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds)
        fired.append(seconds)

    await asyncio.gather(*(sleep(0.1 * number) for number in (5, 3, 1, 4, 2)))
    assert fired == sorted(fired)


@virtual
async def test_threads_are_run_at_once() -> None:
    assert await asyncio.to_thread(sum, [1, 2, 3]) == 6
    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(lambda: 1 / 0)


def test_waiting_for_what_cannot_come_is_a_deadlock() -> None:
    async def forever() -> None:
        await asyncio.create_task(asyncio.Event().wait(), name="the stuck one")

    with pytest.raises(Deadlock, match="the stuck one"):
        run_virtual(forever())


def test_what_runs_on_for_ever_is_stopped() -> None:
    async def tick() -> None:
        for _ in range(1000):
            await asyncio.sleep(1)

    with pytest.raises(Deadlock, match="still running after 100 s"):
        run_virtual(tick(), horizon=100)


def test_a_callback_that_fails_fails_the_run() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)

    with pytest.raises(RuntimeError) as caught:
        run_virtual(main())
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@virtual
async def test_skew_moves_the_wall_clock_only() -> None:
    true, fast = SimulatedClock(), SimulatedClock(skew=90.0)
    assert fast.wall() - true.wall() == 90.0
    assert fast.monotonic() == true.monotonic()
    await asyncio.sleep(5)
    assert true.monotonic() == 5
