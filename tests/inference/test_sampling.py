"""The next token: exactly the softmax's distribution, and the same draw every time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pyodide_node.errors import ConfigError
from pyodide_node.hosts.base import Candidates
from pyodide_node.inference import sampling as module
from pyodide_node.inference.sampling import FIRST_CANDIDATES, Sampling, first_k, pick
from pyodide_node.model.manifest import GenerationDefaults

Doubles = NDArray[np.float64]

logits_of = st.lists(st.floats(-8, 8), min_size=2, max_size=150).map(
    lambda values: np.array(values) + np.arange(len(values)) * 1e-9
)
settings_of = st.builds(
    Sampling,
    temperature=st.floats(0.1, 5),
    top_k=st.one_of(st.just(0), st.integers(1, 200)),
    top_p=st.one_of(st.just(1.0), st.floats(0.05, 0.999)),
    repetition_penalty=st.one_of(st.just(1.0), st.floats(0.5, 3)),
    seed=st.integers(0, 1000),
)


seen_of = st.frozensets(st.integers(0, 150), max_size=40)


def head(logits: Doubles, temperature: float, k: int) -> Candidates:
    """What an engine's head says."""
    scaled = logits / temperature
    ids = np.argsort(-scaled, kind="stable")[:k]
    top = float(scaled.max())
    return Candidates(
        ids=ids.tolist(),
        values=scaled[ids].tolist(),
        logsumexp=top + float(np.log(np.exp(scaled - top).sum())),
    )


def penalised(logits: Doubles, penalty: float, seen: Set[int]) -> Doubles:
    """As transformers' RepetitionPenaltyLogitsProcessor."""
    repeated = [token in seen for token in range(len(logits))]
    changed = np.where(logits < 0, logits * penalty, logits / penalty)
    return np.where(repeated, changed, logits)


def softmax(
    logits: Doubles, sampling: Sampling, seen: Set[int] = frozenset()
) -> tuple[list[int], Doubles]:
    """Tokens from the likeliest on and their probabilities, with nothing clever about it."""
    scaled = penalised(logits, sampling.repetition_penalty, seen) / sampling.scale
    order = np.argsort(-scaled, kind="stable")
    chances = np.exp(scaled[order] - scaled.max())
    if sampling.top_k:
        order, chances = order[: sampling.top_k], chances[: sampling.top_k]
    chances /= chances.sum()
    if sampling.top_p < 1:
        enough = int(np.searchsorted(np.cumsum(chances), sampling.top_p)) + 1
        order, chances = order[:enough], chances[:enough] / chances[:enough].sum()
    return order.tolist(), chances


def ask_until_told(
    logits: Doubles, sampling: Sampling, position: int, k: int, seen: Set[int] = frozenset()
) -> int:
    """As the asker does: more candidates until `pick` can tell."""
    while True:
        token = pick(head(logits, sampling.scale, k), sampling, position, len(logits), seen)
        if token is not None:
            return token
        assert k < len(logits)
        k = min(k * 8, len(logits))


class Drawn:
    """Stands in for the generator: every draw is this one."""

    def __init__(self, draw: float) -> None:
        self._draw = draw

    def __call__(self, seed: str) -> Drawn:
        return self

    def random(self) -> float:
        return self._draw


@given(logits=logits_of, sampling=settings_of, draw=st.floats(0, 1, exclude_max=True), seen=seen_of)
def test_every_draw_falls_where_a_plain_softmax_puts_it(
    logits: Doubles, sampling: Sampling, draw: float, seen: frozenset[int]
) -> None:
    order, chances = softmax(logits, sampling, seen)
    values = penalised(logits, sampling.repetition_penalty, seen)
    assume(np.diff(np.sort(values)).min() > 1e-12)  # of equals either is right
    borders = np.cumsum(chances)
    if np.abs(borders[:-1] - draw).min(initial=1.0) < 1e-9:
        return  # on a border either neighbour is right
    if sampling.top_p < 1:
        flat = Sampling(temperature=sampling.scale, repetition_penalty=sampling.repetition_penalty)
        whole = np.cumsum(softmax(logits, flat, seen)[1])
        if np.abs(np.concatenate([whole, borders]) - sampling.top_p).min() < 1e-9:
            return  # where the nucleus ends is as undecided
    expected = order[min(int(np.searchsorted(borders, draw, "right")), len(order) - 1)]
    with patch.object(module.random, "Random", Drawn(draw)):
        got = ask_until_told(logits, sampling, 0, first_k(sampling, len(logits)), seen)
    assert got == expected


@given(logits=logits_of, sampling=settings_of, k=st.integers(1, 150), seen=seen_of)
def test_how_many_candidates_are_shown_never_changes_the_token(
    logits: Doubles, sampling: Sampling, k: int, seen: frozenset[int]
) -> None:
    values = penalised(logits, sampling.repetition_penalty, seen)
    assume(np.diff(np.sort(values)).min() > 1e-12)
    whole = ask_until_told(logits, sampling, 3, len(logits), seen)
    assert ask_until_told(logits, sampling, 3, min(k, len(logits)), seen) == whole


@given(logits=logits_of, penalty=st.floats(0.5, 3), seen=seen_of)
def test_the_greedy_token_under_a_penalty_is_transformers_own(
    logits: Doubles, penalty: float, seen: frozenset[int]
) -> None:
    values = penalised(logits, penalty, seen)
    sampling = Sampling(repetition_penalty=penalty)
    for k in (1, first_k(sampling, len(logits))):
        assert values[ask_until_told(logits, sampling, 0, k, seen)] == pytest.approx(values.max())


def test_a_penalty_falls_on_tokens_that_the_head_did_not_show() -> None:
    # Token 0 falls behind 1; of 2, unseen by the head's two best, nothing has to be known.
    logits = np.array([4.0, 3.0, 1.0])
    sampling = Sampling(repetition_penalty=2)
    assert pick(head(logits, 1.0, 1), sampling, 0, 3, frozenset({0})) is None
    assert pick(head(logits, 1.0, 2), sampling, 0, 3, frozenset({0})) is None
    assert pick(head(logits, 1.0, 3), sampling, 0, 3, frozenset({0})) == 1


@given(asked=st.fixed_dictionaries({}, optional={"temperature": st.just(0), "top_k": st.just(5)}))
def test_what_nobody_asks_for_is_the_models_own_and_then_the_networks(
    asked: dict[str, float],
) -> None:
    defaults = GenerationDefaults(temperature=0.6, top_p=0.8, repetition_penalty=1.1)
    with_defaults = Sampling.of(defaults, seed=3, **asked)
    assert with_defaults == Sampling(
        temperature=asked.get("temperature", 0.6),
        top_k=int(asked.get("top_k", 0)),
        top_p=0.8,
        repetition_penalty=1.1,
        seed=3,
    )
    assert Sampling.of(None, seed=3) == Sampling(temperature=0.7, seed=3)


def test_seeds_and_positions_together_make_the_distribution() -> None:
    sampling = Sampling(temperature=1.3, top_k=5, top_p=0.95, seed=11)
    logits = np.array([2.0, 1.5, 0.1, -0.5, -1.0, -9.0])
    candidates = head(logits, 1.3, 5)
    drawn = Counter(pick(candidates, sampling, position, 6) for position in range(20_000))
    order, chances = softmax(logits, sampling)
    assert set(drawn) <= set(order)
    for token, chance in zip(order, chances, strict=True):
        spread = (20_000 * chance * (1 - chance)) ** 0.5
        assert abs(drawn[token] - 20_000 * chance) < 4 * spread


def test_a_draw_depends_on_seed_and_position_alone() -> None:
    candidates = head(np.zeros(100), 1.0, 100)
    one, other = (Sampling(temperature=1, seed=seed) for seed in (1, 2))
    tokens = [pick(candidates, one, position, 100) for position in range(20)]
    assert [pick(candidates, one, position, 100) for position in reversed(range(20))] == (
        tokens[::-1]
    )
    assert [pick(candidates, other, position, 100) for position in range(20)] != tokens
    assert len(set(tokens)) > 10


def test_greedy_takes_the_best_of_one_candidate() -> None:
    assert first_k(Sampling(), 50_000) == 1
    assert pick(head(np.array([0.0, 3.0, 3.0]), 1.0, 1), Sampling(), 0, 3) == 1


def test_a_draw_outside_the_candidates_asks_for_more() -> None:
    flat = np.zeros(10_000)
    sampling = Sampling(temperature=1, seed=4)
    assert pick(head(flat, 1.0, 1), sampling, 0, 10_000) is None
    assert pick(head(flat, 1.0, 10_000), sampling, 0, 10_000) is not None


def test_a_nucleus_that_the_candidates_do_not_reach_asks_for_more() -> None:
    sampling = Sampling(temperature=1, top_p=0.5)
    assert pick(head(np.zeros(100), 1.0, 49), sampling, 0, 100) is None
    assert pick(head(np.zeros(100), 1.0, 51), sampling, 0, 100) is not None


def test_fewer_candidates_than_top_k_ask_for_more() -> None:
    sampling = Sampling(temperature=1, top_k=10)
    assert pick(head(np.zeros(100), 1.0, 9), sampling, 0, 100) is None


def test_a_head_that_shows_more_than_top_k_changes_nothing() -> None:
    sampling = Sampling(temperature=1, top_k=2, seed=5)
    candidates = head(np.zeros(10), 1.0, 10)
    assert {pick(candidates, sampling, position, 10) for position in range(200)} == {0, 1}


@pytest.mark.parametrize(
    ("sampling", "vocabulary", "k"),
    [
        (Sampling(repetition_penalty=1.1), 50_000, FIRST_CANDIDATES),
        (Sampling(temperature=1, top_k=20, repetition_penalty=1.1), 50_000, 20 + FIRST_CANDIDATES),
        (Sampling(temperature=1), 50_000, FIRST_CANDIDATES),
        (Sampling(temperature=1), 10, 10),
        (Sampling(temperature=1, top_k=500), 50_000, 500),
        (Sampling(temperature=1, top_k=500), 300, 300),
    ],
)
def test_the_head_is_asked_for_as_many_as_can_matter(
    sampling: Sampling, vocabulary: int, k: int
) -> None:
    assert first_k(sampling, vocabulary) == k


def test_the_smallest_temperatures_do_not_overflow() -> None:
    assert Sampling(temperature=1e-300).scale == 1e-3
    assert Sampling(temperature=0).scale == 1.0


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 10.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_k", -1),
        ("top_p", -0.1),
        ("top_p", 1.1),
        ("repetition_penalty", 0),
    ],
)
def test_an_impossible_setting_is_named(setting: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{setting} must lie between") as caught:
        Sampling(**{setting: value})  # type: ignore[arg-type]
    assert caught.value.data["setting"] == setting
