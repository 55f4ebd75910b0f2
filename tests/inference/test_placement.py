"""Which blocks a node takes: the swarm's weakest, without wandering."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyodide_node.inference.placement import (
    MOVE_GAIN,
    Served,
    choose_span,
    coverage,
    should_move,
)

MOVES = 400
"""Far more than any swarm here needs; a swarm that wanders takes them all."""


@st.composite
def swarms(draw: st.DrawFn) -> tuple[int, list[Served]]:
    """Blocks, and nodes anywhere over them."""
    blocks = draw(st.integers(1, 16))
    nodes = []
    for _ in range(draw(st.integers(1, 12))):
        room = draw(st.integers(1, blocks))
        first = draw(st.integers(0, blocks - room))
        nodes.append(Served(first, first + room, draw(st.floats(0.1, 1000))))
    return blocks, nodes


def others_of(nodes: list[Served], index: int) -> list[Served]:
    return nodes[:index] + nodes[index + 1 :]


def settle(blocks: int, nodes: list[Served], seed: int) -> int:
    """Everybody asks whether to move, in any order, until nobody does; the moves made."""
    rng = random.Random(seed)
    moves = 0
    while moves < MOVES:
        for index in rng.sample(range(len(nodes)), len(nodes)):
            mine = nodes[index]
            target = should_move(blocks, mine, others_of(nodes, index), tie=index)
            if target is not None:
                nodes[index] = Served(*target, mine.throughput)
                moves += 1
                break
        else:
            return moves
    return moves


@given(swarm=swarms(), room=st.integers(-1, 20), tie=st.integers(0, 2**32))
def test_a_span_lies_within_the_model_and_fills_the_room(
    swarm: tuple[int, list[Served]], room: int, tie: int
) -> None:
    blocks, nodes = swarm
    first, last = choose_span(blocks, room, nodes, tie)
    assert 0 <= first < last <= blocks
    assert last - first == max(1, min(room, blocks))


@given(swarm=swarms(), room=st.integers(1, 16), tie=st.integers(0, 2**32))
def test_no_other_span_is_needed_more(swarm: tuple[int, list[Served]], room: int, tie: int) -> None:
    blocks, nodes = swarm
    first, last = choose_span(blocks, room, nodes, tie)
    total = coverage(blocks, nodes)
    width = last - first
    windows = [sorted(total[start : start + width]) for start in range(blocks - width + 1)]
    assert sorted(total[first:last]) == min(windows)


@given(swarm=swarms())
def test_coverage_shares_a_node_s_speed_among_its_blocks(swarm: tuple[int, list[Served]]) -> None:
    blocks, nodes = swarm
    total = coverage(blocks, nodes)
    assert sum(total) == pytest.approx(sum(node.throughput for node in nodes))
    for block, speed in enumerate(total):
        assert (speed > 0) == any(node.first <= block < node.last for node in nodes)


def test_a_span_beyond_the_model_covers_only_what_there_is() -> None:
    assert coverage(2, [Served(1, 5, 8.0)]) == [0.0, 2.0]


@given(blocks=st.integers(1, 24), room=st.integers(1, 24), ties=st.lists(st.integers(0, 2**32)))
def test_equal_nodes_that_come_one_after_another_leave_no_gap(
    blocks: int, room: int, ties: list[int]
) -> None:
    nodes: list[Served] = []
    for index in range(-(-blocks // min(room, blocks))):
        tie = ties[index] if index < len(ties) else index
        nodes.append(Served(*choose_span(blocks, room, nodes, tie), 10.0))
    assert 0.0 not in coverage(blocks, nodes)


@given(swarm=swarms(), seed=st.integers(0, 100))
def test_moving_comes_to_an_end(swarm: tuple[int, list[Served]], seed: int) -> None:
    blocks, nodes = swarm
    assert settle(blocks, nodes, seed) < MOVES


@given(swarm=swarms(), seed=st.integers(0, 100))
def test_no_move_leaves_the_swarm_weaker(swarm: tuple[int, list[Served]], seed: int) -> None:
    blocks, nodes = swarm
    before = coverage(blocks, nodes)
    settle(blocks, nodes, seed)
    after = coverage(blocks, nodes)
    assert after.count(0.0) <= before.count(0.0)
    assert min(after) >= min(before)


@given(swarm=swarms(), seed=st.integers(0, 100))
def test_with_room_for_every_block_twice_no_block_is_left_alone(
    swarm: tuple[int, list[Served]], seed: int
) -> None:
    blocks, nodes = swarm
    while sum(node.last - node.first for node in nodes) < 2 * blocks:
        nodes.append(Served(0, nodes[0].last - nodes[0].first, 10.0))
    settle(blocks, nodes, seed)
    assert 0.0 not in coverage(blocks, nodes)


@given(swarm=swarms())
def test_two_swarms_alike_decide_alike(swarm: tuple[int, list[Served]]) -> None:
    blocks, nodes = swarm
    again = [should_move(blocks, nodes[0], nodes[1:][::-1], 7) for _ in range(2)]
    assert again[0] == again[1]


def test_a_gain_too_small_to_load_weights_for_moves_nobody() -> None:
    mine, other = Served(0, 1, 10.0), Served(0, 1, 10.0)
    rest = Served(1, 2, 10.0 / MOVE_GAIN)
    assert should_move(2, mine, [other, rest]) is None
    assert should_move(2, mine, [other, Served(1, 2, 5.0)]) == (1, 2)


def test_who_alone_serves_a_block_stays() -> None:
    assert should_move(4, Served(0, 2, 10.0), [Served(2, 4, 1.0)]) is None


def test_a_gap_is_filled_though_another_stays_open() -> None:
    crowd = [Served(0, 2, 10.0)] * 3
    assert should_move(8, crowd[0], crowd[1:]) is not None
