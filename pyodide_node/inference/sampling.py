"""Choosing the next token from the head's candidates. Pure and exact.

The head gives only the best k candidates, but with the log-sum-exp of the whole vocabulary, so
their probabilities are true ones. When the draw falls outside them `pick` says so and the caller
asks for more: the distribution is never cut by accident.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from pyodide_node.errors import ConfigError
from pyodide_node.hosts.base import Candidates

__all__ = ["FIRST_CANDIDATES", "Sampling", "first_k", "pick"]

FIRST_CANDIDATES = 64
"""Enough for nearly every draw from a model that is any good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """temperature 0 is greedy; top_k 0 and top_p 1 are off. The same seed gives the same text."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (("temperature", 0, 10), ("top_k", 0, 1 << 22), ("top_p", 0, 1)):
            value = getattr(self, name)
            if not math.isfinite(value) or not low <= value <= high:
                raise ConfigError(f"{name} must lie between {low} and {high}", setting=name)

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    @property
    def scale(self) -> float:
        """The temperature for the head; the smallest one does not overflow float32."""
        return 1.0 if self.greedy else max(self.temperature, 1e-3)


def first_k(sampling: Sampling, vocab_size: int) -> int:
    """How many candidates to ask the head for at first."""
    if sampling.greedy:
        return 1
    return min(sampling.top_k or FIRST_CANDIDATES, vocab_size)


def pick(candidates: Candidates, sampling: Sampling, position: int, vocab_size: int) -> int | None:
    """The token at `position`, or None when more candidates are needed to tell.

    The draw depends on seed and position alone, so an answer can be taken up again anywhere.
    """
    if sampling.greedy:
        return candidates.ids[0]
    most = min(sampling.top_k or vocab_size, vocab_size)
    shown = min(len(candidates.ids), most)
    whole = shown == most
    probabilities = [math.exp(value - candidates.logsumexp) for value in candidates.values[:shown]]
    # top_k renormalises before top_p cuts, as in transformers' order of logits processors.
    mass = math.fsum(probabilities) if sampling.top_k else 1.0
    if sampling.top_k and not whole:
        return None
    if sampling.top_p < 1:
        kept = _nucleus(probabilities, sampling.top_p * mass)
        if kept is None and not whole:
            return None
        probabilities = probabilities[: kept or shown]
        mass = math.fsum(probabilities)
    draw = random.Random(f"{sampling.seed}:{position}").random() * mass  # noqa: S311
    for token, probability in zip(candidates.ids, probabilities, strict=False):
        draw -= probability
        if draw < 0:
            return token
    if not whole and sampling.top_p == 1:
        return None
    return candidates.ids[len(probabilities) - 1]


def _nucleus(probabilities: list[float], mass: float) -> int | None:
    """How many of the best reach `mass` together; None when they do not."""
    total = 0.0
    for count, probability in enumerate(probabilities, 1):
        total += probability
        if total >= mass:
            return count
    return None
