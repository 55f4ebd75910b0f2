"""The storage cap holds whatever comes, goes, is pinned or refused."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pyodide_node.budget import MEGABYTE, Budget
from pyodide_node.config import ResourceLimits
from pyodide_node.delivery.storage import Storage
from pyodide_node.hosts.simulated import SimulatedNetwork, simulated_host, virtual

SIZE = MEGABYTE // 2


def made(cap: int) -> tuple[Any, Budget, Storage, list[int]]:
    """A host, its budget, its storage under so many megabytes, and a count of evictions."""
    host = simulated_host(SimulatedNetwork(), "ada")
    budget = Budget(host.clock, "simulated", ResourceLimits(storage=cap))
    evictions: list[int] = []
    return host, budget, Storage(host, budget, lambda: evictions.append(1)), evictions


async def keep(storage: Storage, name: str, size: int = SIZE) -> bool:
    """As a haul does."""
    room = await storage.room(size)
    if room:
        storage.came(name, size, True)
        storage.release(size)
    return room


@virtual
async def test_the_least_recently_used_goes_first_and_pinned_pieces_stay() -> None:
    _, _, storage, evictions = made(cap=2)
    for name in "abcd":
        assert await keep(storage, name)
    storage.touch("a")
    storage.pin(["b"])
    assert await keep(storage, "e")
    assert [name for name in "abcde" if storage.has(name)] == ["a", "b", "d", "e"]
    assert evictions == [1]
    storage.pin("abde")
    assert not await keep(storage, "f")
    assert storage.used == 4 * SIZE
    assert storage.available == 0


@virtual
async def test_what_is_on_its_way_has_its_room() -> None:
    _, _, storage, _ = made(cap=1)
    assert await storage.room(SIZE)
    assert await storage.room(SIZE)
    assert not await storage.room(1)
    storage.release(SIZE)
    assert await storage.room(SIZE)


@virtual
async def test_a_disk_that_refuses_is_not_asked_for_more_until_something_new_is_fetched() -> None:
    _, _, storage, _ = made(cap=4)
    await keep(storage, "a")
    storage.pin("a")
    storage.came("b", SIZE, False)
    assert not await storage.room(SIZE)
    storage.rested()
    assert await storage.room(SIZE)


@virtual
async def test_a_lower_cap_evicts_pinned_pieces_last() -> None:
    _, budget, storage, _ = made(cap=2)
    for name in "abcd":
        await keep(storage, name)
    storage.pin("ab")
    budget.set_limits(ResourceLimits(storage=1))
    await storage.enforce()
    assert [name for name in "abcd" if storage.has(name)] == ["a", "b"]
    budget.set_limits(ResourceLimits(storage=0))
    await storage.enforce()
    assert storage.used == 0


@virtual
async def test_without_storage_nothing_is_kept_or_counted() -> None:
    host, _, storage, _ = made(cap=100)
    host.store.faults.denied = True
    assert not await storage.room(1)
    storage.came("a", SIZE, False)
    assert storage.used == storage.available == 0


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.integers(1, MEGABYTE), st.booleans()), max_size=30
    ),
    st.integers(0, 3),
)
def test_the_cap_is_never_exceeded(steps: list[tuple[str, int, bool]], cap: int) -> None:
    @virtual
    async def run() -> None:
        host, budget, storage, _ = made(cap)
        for name, size, pinned in steps:
            piece = bytes(size)
            if storage.has(name):
                storage.touch(name)
            elif await storage.room(size):
                host.store._blobs[name] = piece
                storage.came(name, size, True)
                storage.release(size)
            if pinned:
                storage.pin([name])
            held = sum((await host.store.held()).values())
            assert held == storage.used <= budget.limits.storage * MEGABYTE

    run()
