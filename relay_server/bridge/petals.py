"""Our blocks as servers of Petals announce theirs. Sans-IO.

For each block, under "{prefix}.{block}" and the announcing peer's id: (state, throughput, more).
For each model, under "_petals.models" and its prefix: how many blocks it has, and where it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from relay_server.bridge.feed import Served
from relay_server.bridge.messages import Item
from relay_server.bridge.settings import State
from relay_server.bridge.values import key_of, pack

__all__ = ["MODELS", "STATES", "Announced", "announced", "items", "prefix_of"]

STATES: Final = {"offline": 0, "joining": 1, "online": 2}
MODELS: Final = "_petals.models"

_OFFLINE: Final[tuple[object, ...]] = (STATES["offline"], 0.0, {})


@dataclass(frozen=True, slots=True)
class Announced:
    """One record as others look it up, before it has an expiration."""

    name: str
    subkey: str
    value: object

    @property
    def place(self) -> tuple[str, str]:
        return self.name, self.subkey

    def withdrawn(self) -> Announced | None:
        """What takes it back: nothing can be deleted. None of what only expires."""
        return None if self.name == MODELS else Announced(self.name, self.subkey, _OFFLINE)


def prefix_of(model: Served, prefix: str) -> str:
    """What stands before the block's number: ours alone, so that nobody who looks for a model of
    Petals finds it. Petals allows neither dots nor spaces there."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", model.name)[:48].strip("-")
    return "-".join(part for part in (prefix, name, model.id[:12]) if part)


def announced(
    models: Sequence[Served], *, peer: str, prefix: str, state: State, name: str, relay: str
) -> Iterator[Announced]:
    """All of `models`, served by `peer` (a peer id in base58) as far as others can tell.

    `name` is what people read; `relay` is the relay's URL, where a model can be had.
    """
    for model in models:
        uid = prefix_of(model, prefix)
        for first, last in model.runs():
            more = {"public_name": name, "start_block": first, "end_block": last}
            for block in range(first, last):
                value = (STATES[state], model.rates[block], more)
                yield Announced(f"{uid}.{block}", peer, value)
        about = {"num_blocks": len(model.rates), "repository": f"{relay}/models/{model.id}/"}
        # Petals keeps what begins so off its lists.
        if model.runs() and not uid.startswith("_"):
            yield Announced(MODELS, uid, about)


def items(announcements: Sequence[Announced], expires: float) -> list[Item]:
    """As they travel; `expires` in seconds since 1970."""
    return [
        Item(key_of(one.name), pack(one.subkey), pack(one.value), expires) for one in announcements
    ]
