"""A mistake made on purpose, which a fuzzer that works finds; and the search without coverage."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay_server.node import Node
from relay_server.topics import Topics

__all__ = ["by_hypothesis", "plant"]


def plant() -> None:
    """A subscription to a model of a certain first byte breaks the hub."""
    subscribe = Topics.subscribe

    def broken(self: Topics, node: Node, model: bytes) -> None:
        if model[0] & 15 == 7:
            raise KeyError("planted")
        subscribe(self, node, model)

    Topics.subscribe = broken  # type: ignore[method-assign]


def by_hypothesis(target: Callable[[bytes], None], seeds: Sequence[bytes], seconds: float) -> None:
    """Made-up bytes and changed seeds, the same in every run, until the time is over."""
    end = time.monotonic() + seconds
    changed = st.tuples(st.sampled_from(seeds), st.binary(max_size=64), st.integers(0, 64)).map(
        lambda one: one[0][: one[2]] + one[1] + one[0][one[2] :]
    )

    @settings(
        max_examples=1_000_000,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(st.binary(max_size=2048) | changed)
    def search(data: bytes) -> None:
        if time.monotonic() < end:
            target(data)

    search()
