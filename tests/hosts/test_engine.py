"""Spans, caches and ends, on both hosts."""

from __future__ import annotations

import asyncio
import itertools
import math
from array import array
from collections.abc import Sequence

import pytest

from pyodide_node.errors import EngineError, Unreachable
from pyodide_node.hosts.base import Cache, Candidates, Ends, Engine, Span
from tests.hosts.worlds import World, conforms


class Route:
    """Spans one after another, each with its cache."""

    def __init__(self, world: World, ends: Ends, stages: Sequence[tuple[Span, Cache]]) -> None:
        self._width = 4 * world.manifest.hidden_size
        self._ends = ends
        self.stages = stages

    async def run(self, ids: Sequence[int], position: int) -> bytes:
        hidden = await self._ends.embed(ids)
        for span, cache in self.stages:
            hidden = await span.run(cache, hidden, position, len(ids))
        return hidden

    async def choose(self, hidden: bytes, k: int = 1, temperature: float = 1.0) -> Candidates:
        return await self._ends.head(hidden[-self._width :], temperature, k)

    async def greedy(self, ids: Sequence[int], count: int, position: int = 0) -> list[int]:
        chosen: list[int] = []
        while len(chosen) < count:
            hidden = await self.run(ids, position)
            position += len(ids)
            ids = (await self.choose(hidden)).ids
            chosen += ids
        return chosen


async def make_route(world: World, engine: Engine, *cuts: int, capacity: int = 80) -> Route:
    """A span between each two neighbours of `cuts`."""
    stages = []
    for first, last in itertools.pairwise(cuts):
        span = await engine.load_span(world.manifest, first, last, world.blob)
        stages.append((span, span.open_cache(first, last, capacity)))
    return Route(world, await engine.load_ends(world.manifest, world.blob), stages)


def floats(data: bytes) -> list[float]:
    return array("f", data).tolist()


def same(world: World, one: bytes, other: bytes) -> bool:
    """Equal, as far as another order of additions allows."""
    if world.exact or one == other:
        return one == other
    return floats(one) == pytest.approx(floats(other), rel=1e-4, abs=1e-4)


@conforms
async def test_any_chain_of_spans_answers_as_the_whole_model(world: World) -> None:
    m, engine = world.manifest, (await world.host()).engine
    for cuts in ((0, m.blocks), (0, 1, m.blocks), range(m.blocks + 1)):
        route = await make_route(world, engine, *cuts)
        assert await route.greedy(m.reference.prompt_ids, 32) == m.reference.ids


@conforms
async def test_a_prompt_may_come_in_chunks(world: World) -> None:
    m, engine = world.manifest, (await world.host()).engine
    prompt = m.reference.prompt_ids + m.reference.ids
    route = await make_route(world, engine, 0, m.blocks)
    whole = await route.run(prompt, 0)
    width = len(whole) // len(prompt)
    for cuts in ((0, 5, 6, 20, len(prompt)), range(len(prompt) + 1)):
        route = await make_route(world, engine, 0, m.blocks)
        for first, last in itertools.pairwise(cuts):
            part = await route.run(prompt[first:last], first)
            assert same(world, part, whole[first * width : last * width])


@conforms
async def test_going_back_is_sending_a_smaller_position(world: World) -> None:
    m, engine = world.manifest, (await world.host()).engine
    prompt = m.reference.prompt_ids
    route = await make_route(world, engine, 0, 2, m.blocks)
    once = await route.run(prompt, 0)
    await route.run([7] * 20, len(prompt))
    assert await route.run(prompt, 0) == once
    await route.run([7] * 5, 3)
    await route.run(prompt[3:], 3)
    assert await route.greedy(prompt[-1:], 32, len(prompt) - 1) == m.reference.ids
    # Steps repeated one by one change nothing either.
    for position, one in enumerate(prompt):
        last = await route.run([one], position)
    assert same(world, last, once[-len(last) :])


@conforms
async def test_every_earlier_position_counts(world: World) -> None:
    m, engine = world.manifest, (await world.host()).engine
    route = await make_route(world, engine, 0, m.blocks)
    prompt = m.reference.prompt_ids
    last = (await route.run(prompt, 0))[-4 * m.hidden_size :]
    for position in range(len(prompt) - 1):
        changed = list(prompt)
        changed[position] ^= 1
        assert (await route.run(changed, 0))[-4 * m.hidden_size :] != last
    swapped = [prompt[1], prompt[0], *prompt[2:]]
    assert (await route.run(swapped, 0))[-4 * m.hidden_size :] != last


@conforms
async def test_a_part_of_a_span_is_served_and_the_rest_goes_on(world: World) -> None:
    m, engine = world.manifest, (await world.host()).engine
    prompt = m.reference.prompt_ids
    whole = await make_route(world, engine, 0, m.blocks)
    ((span, _),) = whole.stages
    hidden = await whole.run(prompt, 0)
    first = await whole.choose(hidden)
    ends = await engine.load_ends(world.manifest, world.blob)
    parts = [(span, span.open_cache(a, b, 80)) for a, b in ((0, 1), (1, 3), (3, m.blocks))]
    assert await Route(world, ends, parts).greedy(prompt, 32) == m.reference.ids
    # The session has been split under the first cache's feet.
    position = len(prompt)
    assert [*first.ids, *await whole.greedy(first.ids, 31, position)] == m.reference.ids
    overlapping = [(span, span.open_cache(a, b, 80)) for a, b in ((0, 2), (2, m.blocks))]
    assert await Route(world, ends, overlapping).greedy(prompt, 8) == m.reference.ids[:8]
    assert (span.first, span.last) == (0, m.blocks)


@conforms
async def test_sessions_do_not_see_each_other(world: World) -> None:
    m, engine = world.manifest, (await world.host()).engine
    route = await make_route(world, engine, 0, m.blocks)
    ((span, _),) = route.stages
    ends = await engine.load_ends(m, world.blob)
    others = [Route(world, ends, [(span, span.open_cache(0, m.blocks, 80))]) for _ in range(3)]
    prompt = m.reference.prompt_ids
    answers = await asyncio.gather(*(one.greedy(prompt, 8) for one in (route, *others)))
    assert answers == [m.reference.ids[:8]] * 4


@conforms
async def test_steps_run_in_the_order_they_were_asked_for(world: World) -> None:
    m, engine = world.manifest, (await world.host()).engine
    prompt = m.reference.prompt_ids
    route = await make_route(world, engine, 0, m.blocks)
    ((span, _),) = route.stages
    alone = [await route.run([one], position) for position, one in enumerate(prompt)]
    ends = await engine.load_ends(m, world.blob)
    inputs = [await ends.embed([one]) for one in prompt]
    fresh = span.open_cache(0, m.blocks, 80)
    steps = (span.run(fresh, hidden, position, 1) for position, hidden in enumerate(inputs))
    assert await asyncio.gather(*steps) == alone


@conforms
async def test_steps_that_do_not_fit_are_refused(world: World) -> None:
    m, engine = world.manifest, (await world.host()).engine
    route = await make_route(world, engine, 0, m.blocks, capacity=10)
    ((span, cache),) = route.stages
    assert cache.capacity == 10
    row = bytes(4 * m.hidden_size)
    for hidden, position, count in [
        (row, 1, 1),  # a gap
        (row, -1, 1),
        (row * 11, 0, 11),  # more than the capacity
        (row, 0, 0),
        (b"", 0, 0),
        (b"", 0, 1),
        (row, 0, 2),  # sizes that do not match
        (row + b"\0", 0, 1),
        (row, 0, -1),
    ]:
        with pytest.raises(EngineError):
            await span.run(cache, hidden, position, count)
    await span.run(cache, row * 10, 0, 10)
    with pytest.raises(EngineError):
        await span.run(cache, row, 10, 1)
    await span.run(cache, row, 9, 1)


@conforms
async def test_hidden_states_that_are_no_numbers_are_refused(world: World) -> None:
    m, engine = world.manifest, (await world.host()).engine
    route = await make_route(world, engine, 0, m.blocks)
    ((span, cache),) = route.stages
    ends = await engine.load_ends(m, world.blob)
    for bad in (math.nan, math.inf, -math.inf):
        row = array("f", [0.0] * m.hidden_size)
        row[m.hidden_size // 2] = bad
        with pytest.raises(EngineError):
            await span.run(cache, row.tobytes(), 0, 1)
        with pytest.raises(EngineError):
            await ends.head(row.tobytes(), 1.0, 1)
    # What was refused has left no trace.
    assert await route.greedy(m.reference.prompt_ids, 8) == m.reference.ids[:8]


@conforms
async def test_spans_and_caches_that_cannot_be_are_refused(world: World) -> None:
    m, engine = world.manifest, (await world.host()).engine
    for first, last in ((0, 0), (1, 1), (2, 1), (-1, 1), (0, m.blocks + 1)):
        with pytest.raises(EngineError):
            await engine.load_span(m, first, last, world.blob)
    span = await engine.load_span(m, 1, 3, world.blob)
    for first, last, capacity in [
        (0, 2, 8),
        (1, 4, 8),
        (2, 2, 8),
        (1, 3, 0),
        (1, 3, m.context_length + 1),
    ]:
        with pytest.raises(EngineError):
            span.open_cache(first, last, capacity)


@conforms
async def test_what_has_been_closed_is_of_no_use(world: World) -> None:
    m, engine = world.manifest, (await world.host()).engine
    one = await engine.load_span(m, 0, 2, world.blob)
    other = await engine.load_span(m, 0, 2, world.blob)
    row = bytes(4 * m.hidden_size)
    cache = one.open_cache(0, 2, 8)
    with pytest.raises(EngineError):
        await other.run(cache, row, 0, 1)
    cache.close()
    cache.close()
    with pytest.raises(EngineError):
        await one.run(cache, row, 0, 1)
    left = one.open_cache(0, 2, 8)
    await one.close()
    await one.close()
    with pytest.raises(EngineError):
        await one.run(left, row, 0, 1)


@conforms
async def test_an_engine_is_what_it_says_and_stays_so(world: World) -> None:
    engine = (await world.host()).engine
    (only,) = engine.names(world.manifest)
    engine.use(only)
    assert engine.name == only


@conforms
async def test_a_file_that_cannot_be_had_is_the_readers_error(world: World) -> None:
    async def nothing(sha256: str, size: int) -> bytes:
        raise Unreachable("nobody has it")

    engine = (await world.host()).engine
    with pytest.raises(Unreachable):
        await engine.load_span(world.manifest, 0, 1, nothing)
    with pytest.raises(Unreachable):
        await engine.load_ends(world.manifest, nothing)


@conforms
async def test_the_head_gives_the_best_candidates(world: World) -> None:
    m, engine = world.manifest, (await world.host()).engine
    route = await make_route(world, engine, 0, m.blocks)
    hidden = await route.run(m.reference.prompt_ids, 0)
    every = await route.choose(hidden, m.vocab_size + 5)
    assert sorted(every.ids) == list(range(m.vocab_size))
    pairs = list(zip(every.values, every.ids, strict=True))
    assert pairs == sorted(pairs, key=lambda pair: (-pair[0], pair[1]))
    total = math.log(sum(math.exp(value - every.values[0]) for value in every.values))
    assert every.logsumexp == pytest.approx(every.values[0] + total, abs=1e-4)
    some = await route.choose(hidden, 5)
    assert list(some.ids) == list(every.ids[:5])
    assert some.logsumexp == pytest.approx(every.logsumexp, abs=1e-5)
    cooler = await route.choose(hidden, 5, 0.5)
    assert list(cooler.values) == pytest.approx([2 * value for value in some.values], rel=1e-5)
    assert isinstance(some.ids[0], int)


@conforms
async def test_impossible_sampling_and_ids_are_refused(world: World) -> None:
    m, engine = world.manifest, (await world.host()).engine
    ends = await engine.load_ends(m, world.blob)
    row = bytes(4 * m.hidden_size)
    for temperature, k in ((0.0, 1), (-1.0, 1), (math.nan, 1), (math.inf, 1), (1.0, 0)):
        with pytest.raises(EngineError):
            await ends.head(row, temperature, k)
    for hidden in (b"", row * 2):
        with pytest.raises(EngineError):
            await ends.head(hidden, 1.0, 1)
    for ids in ([], [-1], [m.vocab_size]):
        with pytest.raises(EngineError):
            await ends.embed(ids)
    assert len(await ends.embed([0, m.vocab_size - 1])) == 2 * len(row)
    await ends.close()
    with pytest.raises(EngineError):
        await ends.embed([0])


@conforms
async def test_text_becomes_ids_and_text_again(world: World) -> None:
    m, engine = world.manifest, (await world.host()).engine
    ends = await engine.load_ends(m, world.blob)
    assert [m.bos_id, *ends.encode(m.reference.prompt)] == m.reference.prompt_ids
    for text in ("", "one", "Grüße, 世界\n"):
        ids = ends.encode(text)
        assert m.bos_id not in ids
        assert ends.decode(ids) == text
