"""Choosing the next token from the head's candidates. Pure and exact.

The head gives only the best k candidates, but with the log-sum-exp of the whole vocabulary, so
their probabilities are true ones. When the draw falls outside them `pick` says so and the caller
asks for more: the distribution is never cut by accident.

A repetition penalty changes the logits of tokens seen before, and the head does not know of it.
What is changed among the candidates is exact; of those outside the values are known to be no
better than the last candidate's. So the whole's mass lies between two bounds, and where these
would not give the same token, `pick` asks for more candidates too.
"""

from __future__ import annotations

import math
import random
from collections.abc import Set
from dataclasses import dataclass

from pyodide_node.errors import ConfigError
from pyodide_node.hosts.base import Candidates
from pyodide_node.model.manifest import GenerationDefaults

__all__ = ["FIRST_CANDIDATES", "Sampling", "first_k", "pick"]

FIRST_CANDIDATES = 64
"""Enough for nearly every draw from a model that is any good."""

_LIMITS = {
    "temperature": (0, 10),
    "top_k": (0, 1 << 22),
    "top_p": (0, 1),
    "repetition_penalty": (0.01, 10),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """temperature 0 is greedy; top_k 0, top_p 1 and repetition_penalty 1 are off. The same seed
    gives the same text."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    """Divides the positive logits of tokens in prompt and answer so far, multiplies the negative
    ones (CTRL, arXiv 1909.05858; as transformers does)."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if not math.isfinite(value) or not low <= value <= high:
                raise ConfigError(f"{name} must lie between {low} and {high}", setting=name)

    @classmethod
    def of(
        cls, defaults: GenerationDefaults | None, *, seed: int, **asked: float | None
    ) -> Sampling:
        """What was asked for, else the model's own defaults, else temperature 0.7."""
        chosen: dict[str, float] = {"temperature": 0.7}
        for name in _LIMITS:
            for value in (getattr(defaults, name, None), asked.get(name)):
                if value is not None:
                    chosen[name] = value
        top_k = int(chosen.pop("top_k", 0))
        return cls(seed=seed, top_k=top_k, **chosen)

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    @property
    def penalised(self) -> bool:
        return self.repetition_penalty != 1

    @property
    def scale(self) -> float:
        """The temperature for the head; the smallest one does not overflow float32."""
        return 1.0 if self.greedy else max(self.temperature, 1e-3)


def first_k(sampling: Sampling, vocab_size: int) -> int:
    """How many candidates to ask the head for at first."""
    if sampling.greedy and not sampling.penalised:
        return 1
    wanted = 0 if sampling.greedy else sampling.top_k
    if sampling.penalised and wanted:
        wanted += FIRST_CANDIDATES  # some of the best are seen ones, and fall
    return min(wanted or FIRST_CANDIDATES, vocab_size)


def pick(
    candidates: Candidates,
    sampling: Sampling,
    position: int,
    vocab_size: int,
    seen: Set[int] = frozenset(),
) -> int | None:
    """The token at `position`, or None when more candidates are needed to tell.

    The draw depends on seed and position alone, so an answer can be taken up again anywhere.
    `seen` are the ids before `position`; they matter to a repetition penalty only.
    """
    known = _penalised(candidates, sampling, vocab_size, seen)
    if sampling.greedy:
        return known.ids[0] if known.ids else None
    most = min(sampling.top_k or vocab_size, vocab_size)
    shown = min(len(known.ids), most)
    whole = shown == most
    probabilities = known.probabilities[:shown]
    low, high = known.low, known.high
    # top_k renormalises before top_p cuts, as in transformers' order of logits processors.
    if sampling.top_k:
        if not whole:
            return None
        low = high = math.fsum(probabilities)
    if sampling.top_p < 1:
        kept = _nucleus(probabilities, sampling.top_p * low)
        if kept != _nucleus(probabilities, sampling.top_p * high) or (kept is None and not whole):
            return None
        probabilities = probabilities[: kept or shown]
        low = high = math.fsum(probabilities)
        whole = True
    draw = random.Random(f"{sampling.seed}:{position}").random()  # noqa: S311
    place = _place(probabilities, draw * low)
    if place != _place(probabilities, draw * high):
        return None
    if place is None:
        return known.ids[len(probabilities) - 1] if whole else None
    return known.ids[place]


@dataclass(frozen=True, slots=True)
class _Known:
    """Those of the best tokens whose order is certain, and between what the whole's mass lies."""

    ids: list[int]
    probabilities: list[float]
    low: float
    high: float


def _penalised(
    candidates: Candidates, sampling: Sampling, vocab_size: int, seen: Set[int]
) -> _Known:
    ids, values, total = candidates.ids, candidates.values, candidates.logsumexp
    if not sampling.penalised:
        return _Known(list(ids), [math.exp(value - total) for value in values], 1.0, 1.0)
    penalty = sampling.repetition_penalty

    def changed(value: float) -> float:
        return value / penalty if value > 0 else value * penalty

    both = zip(ids, values, strict=True)
    pairs = sorted(
        ((changed(value) if token in seen else value, token) for token, value in both),
        key=lambda pair: (-pair[0], pair[1]),
    )
    if len(ids) == vocab_size:
        masses = [math.exp(value - total) for value, _ in pairs]
        return _Known([token for _, token in pairs], masses, math.fsum(masses), math.fsum(masses))
    last = values[-1]
    hidden = len(seen - frozenset(ids))
    best = max(last, changed(last)) if hidden else last
    sure = [(value, token) for value, token in pairs if value > best]
    shown = math.fsum(math.exp(value - total) for value, _ in pairs)
    rest = max(0.0, 1.0 - math.fsum(math.exp(value - total) for value in values))
    return _Known(
        [token for _, token in sure],
        [math.exp(value - total) for value, _ in sure],
        shown + max(0.0, rest - hidden * math.exp(last - total)),
        shown + rest + (hidden * math.exp(best - total) if penalty < 1 else 0.0),
    )


def _place(probabilities: list[float], draw: float) -> int | None:
    for place, probability in enumerate(probabilities):
        draw -= probability
        if draw < 0:
            return place
    return None


def _nucleus(probabilities: list[float], mass: float) -> int | None:
    """How many of the best reach `mass` together; None when they do not."""
    total = 0.0
    for count, probability in enumerate(probabilities, 1):
        total += probability
        if total >= mass:
            return count
    return None
