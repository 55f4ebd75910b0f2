"""The cheapest chain of spans: as good as trying them all, and clear about what is missing."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyodide_node.errors import NoRoute
from pyodide_node.inference.route import HOP_COST, Hop, Offer, find_route, uncovered


@st.composite
def offers_over(draw: st.DrawFn) -> tuple[int, list[Offer]]:
    blocks = draw(st.integers(1, 5))
    offers = []
    for index in range(draw(st.integers(0, 5))):
        first = draw(st.integers(0, blocks - 1))
        offers.append(
            Offer(
                peer=bytes([index]),
                first=first,
                last=draw(st.integers(first + 1, blocks)),
                seconds_per_block=draw(st.floats(0, 0.1)),
                latency=draw(st.floats(0, 0.5)),
            )
        )
    return blocks, offers


def every_cost(blocks: int, offers: list[Offer], at: int = 0) -> Iterator[float]:
    """What each way through costs, with nothing clever about it."""
    if at == blocks:
        yield 0.0
        return
    for offer in offers:
        if offer.first <= at:
            for end in range(at + 1, offer.last + 1):
                trips = 2 if end == blocks else 1
                step = HOP_COST + trips * offer.latency + (end - at) * offer.seconds_per_block
                for rest in every_cost(blocks, offers, end):
                    yield step + rest


@given(case=offers_over())
def test_no_other_way_through_is_cheaper(case: tuple[int, list[Offer]]) -> None:
    blocks, offers = case
    costs = list(every_cost(blocks, offers))
    if not costs:
        with pytest.raises(NoRoute):
            find_route(blocks, offers)
        return
    hops, cost = find_route(blocks, offers)
    assert cost == pytest.approx(min(costs))
    by_peer = {offer.peer: offer for offer in offers}
    assert [hop.first for hop in hops] == [0, *(hop.last for hop in hops[:-1])]
    assert hops[-1].last == blocks
    for hop in hops:
        offer = by_peer[hop.peer]
        assert offer.first <= hop.first < hop.last <= offer.last


@given(case=offers_over())
def test_no_route_names_every_block_that_nobody_serves(case: tuple[int, list[Offer]]) -> None:
    blocks, offers = case
    missing = uncovered(blocks, offers)
    if missing:
        with pytest.raises(NoRoute, match=f"block {missing[0]} of {blocks}") as caught:
            find_route(blocks, offers)
        assert caught.value.data == {"missing": missing[0], "blocks": missing}


def test_a_near_slow_node_gives_way_to_a_far_fast_one_only_when_that_pays() -> None:
    near = Offer(peer=b"n", first=0, last=8, seconds_per_block=0.010, latency=0.001)
    far = Offer(peer=b"f", first=0, last=8, seconds_per_block=0.001, latency=0.005)
    assert find_route(8, [near, far])[0] == [Hop(peer=b"f", first=0, last=8)]
    farther = Offer(peer=b"g", first=0, last=8, seconds_per_block=0.001, latency=0.200)
    assert find_route(8, [near, farther])[0] == [Hop(peer=b"n", first=0, last=8)]


def test_a_span_may_be_entered_and_left_within() -> None:
    left = Offer(peer=b"l", first=0, last=5, seconds_per_block=0.001, latency=0)
    right = Offer(peer=b"r", first=3, last=8, seconds_per_block=0.002, latency=0)
    assert find_route(8, [left, right])[0] == [
        Hop(peer=b"l", first=0, last=5),
        Hop(peer=b"r", first=5, last=8),
    ]


@pytest.mark.parametrize(("first", "last"), [(0, 9), (-1, 8), (4, 4)])
def test_a_span_that_the_model_does_not_have_is_passed_over(first: int, last: int) -> None:
    liar = Offer(peer=b"x", first=first, last=last, seconds_per_block=0, latency=0)
    honest = Offer(peer=b"y", first=0, last=8, seconds_per_block=1, latency=1)
    assert find_route(8, [liar, honest])[0] == [Hop(peer=b"y", first=0, last=8)]
    with pytest.raises(NoRoute):
        find_route(8, [liar])


@pytest.mark.parametrize("seconds", [math.inf, math.nan])
def test_a_node_of_no_finite_speed_serves_nothing(seconds: float) -> None:
    stuck = Offer(peer=b"x", first=0, last=8, seconds_per_block=seconds, latency=0)
    with pytest.raises(NoRoute, match="block 0 of 8"):
        find_route(8, [stuck])
