"""The visitor's caps: memory to the byte, cpu as a share of time that is never exceeded."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyodide_node.budget import MEGABYTE, RUNTIME_MEMORY, Budget, DutyCycle
from pyodide_node.config import ResourceLimits
from pyodide_node.errors import BudgetExceeded
from pyodide_node.hosts.simulated import SimulatedClock, run_virtual, virtual

BURST = 0.25


def budget(memory: int = 100, cpu: int = 20) -> Budget:
    return Budget(SimulatedClock(), "simulated", ResourceLimits(memory=memory, cpu=cpu))


def now() -> float:
    return asyncio.get_running_loop().time()


async def work_through(cycle: DutyCycle, works: list[float]) -> list[tuple[float, float]]:
    """Works of so many seconds, one after another; when each began and ended."""
    spans = []
    for seconds in works:

        async def work(seconds: float = seconds) -> None:
            begun = now()
            await asyncio.sleep(seconds)
            spans.append((begun, now()))

        await cycle.run(work())
    return spans


def busy(spans: list[tuple[float, float]], until: float) -> float:
    """Seconds up to `until` in which any work ran."""
    total, reached = 0.0, 0.0
    for begin, end in sorted(spans):
        total += max(0.0, min(end, until) - max(begin, reached))
        reached = max(reached, min(end, until))
    return total


@given(
    percent=st.integers(1, 100),
    callers=st.lists(
        st.lists(st.floats(0.001, 3), min_size=1, max_size=12), min_size=1, max_size=3
    ),
)
def test_the_share_of_time_spent_working_never_exceeds_the_cap(
    percent: int, callers: list[list[float]]
) -> None:
    """Up to the burst, and one work of each caller: what has begun is not interrupted."""

    async def run() -> None:
        cycle = DutyCycle(SimulatedClock(), percent)
        done = await asyncio.gather(*(work_through(cycle, works) for works in callers))
        spans = [span for one in done for span in one]
        slack = BURST * percent / 100 + sum(max(works) for works in callers) + 1e-6
        for _, moment in spans:
            assert busy(spans, moment) <= moment * percent / 100 + slack

    run_virtual(run())


def test_an_hour_at_twenty_percent_is_twelve_minutes_of_work() -> None:
    async def run() -> float:
        cycle = DutyCycle(SimulatedClock(), 20)
        spans = []
        while now() < 3600:
            spans += await work_through(cycle, [0.05])
        return busy(spans, 3600)

    assert run_virtual(run()) == pytest.approx(720, rel=0.01)


def test_two_callers_at_once_get_no_more_than_one() -> None:
    async def run() -> float:
        cycle = DutyCycle(SimulatedClock(), 20)
        spans: list[tuple[float, float]] = []

        async def caller(seconds: float) -> None:
            while now() < 3600:
                spans.extend(await work_through(cycle, [seconds]))

        await asyncio.gather(caller(1.0), caller(0.7))
        return busy(spans, 3600)

    assert run_virtual(run()) <= 720 * 1.01


@virtual
async def test_a_short_answer_does_not_stutter() -> None:
    cycle = DutyCycle(SimulatedClock(), 50)
    await work_through(cycle, [0.02] * 10)
    assert now() == pytest.approx(0.2)
    await work_through(cycle, [0.02] * 100)
    assert now() == pytest.approx(2 * 2.2 - BURST, abs=0.05)


@virtual
async def test_time_that_passes_idle_is_rest_too() -> None:
    cycle = DutyCycle(SimulatedClock(), 20)
    await work_through(cycle, [1.0])
    await asyncio.sleep(10)
    begun = now()
    await work_through(cycle, [0.01])
    assert now() - begun == pytest.approx(0.01)


@virtual
async def test_at_a_hundred_percent_there_is_no_rest() -> None:
    await work_through(DutyCycle(SimulatedClock(), 100), [1.0] * 5)
    assert now() == 5.0


@virtual
async def test_work_that_fails_is_counted_and_its_error_passed_on() -> None:
    cycle = DutyCycle(SimulatedClock(), 20)

    async def fail() -> None:
        await asyncio.sleep(1)
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - its own
        await cycle.run(fail())
    assert cycle.used() == 10.0


@virtual
async def test_a_caller_that_gives_up_while_resting_leaves_no_work_behind() -> None:
    """Its work never began: dropping it must not warn either."""
    cycle = DutyCycle(SimulatedClock(), 1)
    await work_through(cycle, [1.0])
    task = asyncio.ensure_future(work_through(cycle, [1.0]))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cycle.used() == pytest.approx(10.0)


@virtual
async def test_people_are_told_of_the_last_ten_seconds() -> None:
    cycle = DutyCycle(SimulatedClock(), 100)
    await work_through(cycle, [4.0])
    assert cycle.used() == 40.0
    await asyncio.sleep(8)
    assert cycle.used() == pytest.approx(20.0)
    await asyncio.sleep(3)
    assert cycle.used() == 0.0


@virtual
async def test_a_new_cap_holds_from_the_next_work_on() -> None:
    caps = budget(cpu=100)
    await work_through(caps.cpu, [1.0])
    caps.set_limits(ResourceLimits(cpu=10, memory=100))
    await work_through(caps.cpu, [1.0, 1.0])
    assert now() == pytest.approx(1 + 1 + 9 - BURST + 1)


# --- memory -------------------------------------------------------------------------------


@virtual
async def test_memory_is_reserved_to_the_last_byte() -> None:
    caps = budget(memory=100)
    reservation = caps.reserve(100 * MEGABYTE, "weights")
    assert (caps.memory_used, caps.memory_free) == (100 * MEGABYTE, 0)
    with pytest.raises(BudgetExceeded):
        caps.reserve(1, "a session")
    reservation.release()
    assert (caps.memory_used, caps.memory_free) == (0, 100 * MEGABYTE)


@virtual
async def test_what_does_not_fit_says_what_to_do_and_takes_nothing() -> None:
    caps = budget(memory=100)
    with pytest.raises(BudgetExceeded, match=r"weights needs 300 MB .* raise memory") as caught:
        caps.reserve(300 * MEGABYTE, "weights")
    assert caught.value.data == {
        "resource": "memory",
        "asked": 300 * MEGABYTE,
        "free": 100 * MEGABYTE,
    }
    assert caps.memory_used == 0


@virtual
async def test_a_reservation_is_given_back_once() -> None:
    caps = budget()
    kept = caps.reserve(10, "one")
    reservation = caps.reserve(20, "other")
    reservation.release()
    reservation.release()
    assert caps.memory_used == kept.size == 10


@virtual
async def test_a_passing_reservation_ends_with_its_block_also_by_an_error() -> None:
    caps = budget()
    with caps.reserved(10, "loading"):
        assert caps.memory_used == 10
    with pytest.raises(ValueError), caps.reserved(10, "loading"):  # noqa: PT011 - its own
        raise ValueError
    assert caps.memory_used == 0


@virtual
async def test_under_a_lower_cap_nothing_is_free_and_never_less_than_nothing() -> None:
    caps = budget(memory=100)
    caps.reserve(90 * MEGABYTE, "weights")
    caps.set_limits(ResourceLimits(memory=64))
    assert caps.memory_free == 0


@pytest.mark.parametrize("kind", ["tab", "native"])
def test_the_runtime_itself_counts(kind: str) -> None:
    @virtual
    async def run() -> None:
        caps = Budget(SimulatedClock(), kind, ResourceLimits(memory=1000))  # type: ignore[arg-type]
        assert caps.memory_free == 1000 * MEGABYTE - RUNTIME_MEMORY[kind]  # type: ignore[index]

    run()
