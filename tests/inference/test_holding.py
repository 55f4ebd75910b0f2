"""The blocks a node holds: as many as its caps leave room for, and every byte given back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec
import pytest

from pyodide_node.budget import MEGABYTE, Budget
from pyodide_node.config import ResourceLimits
from pyodide_node.delivery.catalog import Model
from pyodide_node.delivery.delivery import Delivery
from pyodide_node.delivery.storage import Storage
from pyodide_node.errors import BudgetExceeded, EngineError
from pyodide_node.hosts.base import EngineName
from pyodide_node.hosts.simulated import (
    SimulatedEngine,
    SimulatedHost,
    SimulatedModel,
    SimulatedNetwork,
    simulated_host,
    simulated_model,
    virtual,
)
from pyodide_node.inference.holding import Holding
from pyodide_node.model.footprint import Footprint
from pyodide_node.model.manifest import CopyStep, Manifest

FOLDER = "https://cdn.test/model/blobs/"
BLOCKS = 4


class Tab(SimulatedEngine):
    """An engine that has two forms of the weights, as a tab's has."""

    def names(self, manifest: Manifest) -> tuple[EngineName, ...]:
        return ("wasm", "wasm-int4")


@dataclass
class World:
    network: SimulatedNetwork
    model: SimulatedModel
    host: SimulatedHost
    budget: Budget
    holding: Holding

    def needed(self, blocks: int, engine: EngineName = "simulated") -> int:
        """Bytes that so many blocks need in all."""
        return Footprint(self.model.manifest, engine).serving(blocks)

    def leave(self, size: int) -> None:
        """Take all memory but `size` bytes."""
        self.budget.reserve(self.budget.memory_free - size, "other things")


def widened(model: SimulatedModel) -> SimulatedModel:
    """Let expanded blocks take eight times as much."""
    variant = model.manifest.graphs.variants["wasm-expanded"]
    assert variant.expand is not None
    size = model.manifest.layers[0].bytes
    step = CopyStep(source=0, target=7 * size, length=size)
    expand = msgspec.structs.replace(variant.expand, layer=[step])
    variants = model.manifest.graphs.variants | {
        "wasm-expanded": msgspec.structs.replace(variant, expand=expand)
    }
    graphs = msgspec.structs.replace(model.manifest.graphs, variants=variants)
    return replace(model, manifest=msgspec.structs.replace(model.manifest, graphs=graphs))


def world(*, max_blocks: int | None = None, cpu: int = 100, tab: bool = False) -> World:
    network, model = SimulatedNetwork(), simulated_model(blocks=BLOCKS)
    model.publish(network.web, FOLDER.removesuffix("/blobs/"))
    host = simulated_host(network, "ada")
    if tab:
        model = widened(model)
        host = replace(host, engine=Tab(network, "ada"))
    budget = Budget(host.clock, "simulated", ResourceLimits(memory=100, cpu=cpu))
    known = Model(model.manifest, model.manifest.model_id, (FOLDER,))
    fetch = Delivery(host, known, Storage(host, budget, lambda: None))
    return World(network, model, host, budget, Holding(host, budget, known, fetch, max_blocks))


@pytest.mark.parametrize("blocks", range(1, BLOCKS + 1))
def test_the_memory_cap_leaves_room_for_so_many_blocks_exactly(blocks: int) -> None:
    @virtual
    async def run() -> None:
        exact, less = world(), world()
        exact.leave(exact.needed(blocks))
        less.leave(less.needed(blocks) - 1)
        assert exact.holding.room() == exact.holding.require_room() == blocks
        assert less.holding.room() == blocks - 1
        await exact.holding.load(0, blocks)
        assert exact.holding.span == (0, blocks)
        manifest = exact.model.manifest
        assert exact.holding.free_positions() >= manifest.context_length

    run()


@virtual
async def test_a_limit_on_blocks_holds_whatever_memory_there_is() -> None:
    assert world(max_blocks=2).holding.room() == 2
    assert world(max_blocks=99).holding.room() == BLOCKS


@virtual
async def test_no_room_for_a_block_says_what_to_do() -> None:
    here = world()
    here.leave(here.needed(1) - 1)
    with pytest.raises(BudgetExceeded, match=r"one block .* and a session needs .* raise memory"):
        here.holding.require_room()


@virtual
async def test_weights_are_held_compactly_where_that_serves_many_more_blocks() -> None:
    roomy, tight, none = world(tab=True), world(tab=True), world(tab=True)
    assert roomy.holding.require_room() == BLOCKS
    assert roomy.host.engine.name == "wasm"
    tight.leave(tight.needed(1, "wasm") - 1)
    assert tight.holding.require_room() > 1
    assert tight.host.engine.name == "wasm-int4"
    none.leave(none.needed(1, "wasm-int4") - 1)
    with pytest.raises(BudgetExceeded):
        none.holding.require_room()


@virtual
async def test_while_loading_files_and_their_copies_count_and_afterwards_the_weights() -> None:
    here = world()
    footprint = here.holding.footprint
    here.leave(footprint.loading(0, 2) - 1)
    used = here.budget.memory_used
    with pytest.raises(BudgetExceeded, match="blocks 0 to 2 needs"):
        await here.holding.load(0, 2)
    assert here.budget.memory_used == used
    await here.holding.load(0, 1)
    assert here.budget.memory_used == used + footprint.span(0, 1)
    await here.holding.unload()
    assert here.budget.memory_used == used
    assert here.holding.span is None


@virtual
async def test_an_engine_that_refuses_leaves_nothing_reserved() -> None:
    here = world()
    here.host.engine.faults.refuses = True
    with pytest.raises(EngineError):
        await here.holding.load(0, 2)
    assert here.budget.memory_used == 0


@virtual
async def test_any_part_of_what_is_held_is_found_and_nothing_else() -> None:
    here = world()
    assert here.holding.find(0, 1) is None
    assert here.holding.offers(1) == []
    assert here.holding.free_positions() == 0
    await here.holding.load(1, 4)
    for first in range(BLOCKS + 1):
        for last in range(BLOCKS + 1):
            assert (here.holding.find(first, last) is not None) == (1 <= first < last <= 4)


@virtual
async def test_missing_blocks_are_loaded_beside_those_announced_while_there_is_room() -> None:
    here = world(max_blocks=3)
    await here.holding.load(0, 2)
    await here.holding.measure()
    assert not await here.holding.cover(0, 2)  # nothing new: there is no use in trying again
    assert not await here.holding.cover(2, 4)
    assert await here.holding.cover(2, 3)
    assert here.holding.span == (0, 2)
    assert [(one.first, one.last) for one in here.holding.offers(1)] == [(0, 2), (2, 3)]


@virtual
async def test_missing_blocks_that_cannot_be_fetched_are_not_covered() -> None:
    here = world()
    await here.holding.load(0, 2)
    used = here.budget.memory_used
    here.host.store.faults.unreachable.update(
        FOLDER + layer.sha256 for layer in here.model.manifest.layers
    )
    assert not await here.holding.cover(2, 4)
    assert here.budget.memory_used == used


@virtual
async def test_a_node_offers_itself_nothing_that_its_memory_has_no_room_for() -> None:
    here = world()
    await here.holding.load(0, 2)
    await here.holding.measure()
    here.leave(here.holding.footprint.session(100, 2))
    assert len(here.holding.offers(100)) == 1
    assert here.holding.offers(101) == []


@pytest.mark.parametrize(("cpu", "speed"), [(100, 1000.0), (20, 200.0)])
def test_the_speed_announced_is_what_others_get_under_the_cpu_cap(cpu: int, speed: float) -> None:
    @virtual
    async def run() -> None:
        here = world(cpu=cpu)
        await here.holding.load(0, 3)
        await here.holding.measure()
        assert here.holding.throughput == pytest.approx(speed)
        assert here.budget.memory_used == here.holding.footprint.span(0, 3)

    run()


@virtual
async def test_measuring_a_slow_engine_stops_early() -> None:
    here = world()
    here.host.engine.faults.slow = 400.0
    await here.holding.load(0, 1)
    await here.holding.measure()
    assert here.host.clock.monotonic() < 2
    assert here.budget.memory_free > 90 * MEGABYTE
