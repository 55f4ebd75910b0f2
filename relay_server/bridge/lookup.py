"""Finding the peers nearest to some keys, and what they hold there. Sans-IO.

Whoever drives it asks `next()` whom to ask for what, and tells what came of it. A peer is asked for
all the keys at once that it is known to be near to, and for none twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from pyodide_node.errors import ProtocolError
from relay_server.bridge import limits
from relay_server.bridge.messages import Found
from relay_server.bridge.peers import distance

__all__ = ["Lookup"]

_TOLD: Final = 2 * limits.BUCKET
"""Peers of one key that are worth remembering."""


class Lookup:
    """`seeds` are node and peer ids to begin with; `own` is never asked."""

    def __init__(
        self, keys: Iterable[bytes], seeds: Sequence[tuple[bytes, bytes]], own: bytes
    ) -> None:
        self._own = own
        self._near: dict[bytes, dict[bytes, bytes]] = {key: {} for key in keys}
        self._asked: dict[bytes, set[bytes]] = {}
        self._calls = 0
        self._answered: set[bytes] = set()
        self._failed: set[bytes] = set()
        self.told_by: dict[bytes, bytes] = {}
        """Who told of a peer: they know its address."""
        for key in self._near:
            self._learn(key, seeds)

    def next(self) -> tuple[bytes, list[bytes]] | None:
        """A peer, and the keys to ask it for; None when nobody is left that is near enough."""
        if self._calls >= limits.LOOKUP_CALLS:
            return None
        wanted: dict[bytes, list[bytes]] = {}
        for key in self._near:
            for peer in self._nearest(key):
                if key not in self._asked.get(peer, ()):
                    wanted.setdefault(peer, []).append(key)
        if not wanted:
            return None
        peer = max(wanted, key=lambda one: len(wanted[one]))
        keys = wanted[peer][: limits.FIND_KEYS]
        self._asked.setdefault(peer, set()).update(keys)
        self._calls += 1
        return peer, keys

    def answered(self, peer: bytes, keys: Sequence[bytes], results: Sequence[Found]) -> None:
        """Raises ProtocolError when the answer is of other keys."""
        if len(results) != len(keys):
            self.failed(peer)
            raise ProtocolError("a peer answered for another number of keys")
        self._answered.add(peer)
        for key, found in zip(keys, results, strict=True):
            for _, other in found.near:
                if len(self.told_by) < limits.LOOKUP_CALLS * limits.BUCKET:
                    self.told_by.setdefault(other, peer)
            self._learn(key, found.near)

    def failed(self, peer: bytes) -> None:
        """It does not answer: the next nearest takes its place."""
        self._failed.add(peer)
        for near in self._near.values():
            near.pop(peer, None)

    def nearest(self, key: bytes) -> list[bytes]:
        """Peers that answered, at most REPLICAS, nearest first."""
        return [peer for peer in self._nearest(key) if peer in self._answered]

    def _nearest(self, key: bytes) -> list[bytes]:
        near = self._near[key]
        return sorted(near, key=lambda peer: distance(near[peer], key))[: limits.REPLICAS]

    def _learn(self, key: bytes, told: Sequence[tuple[bytes, bytes]]) -> None:
        near = self._near[key]
        for node, peer in told:
            if node != self._own and peer not in self._failed:
                near.setdefault(peer, node)
        if len(near) > _TOLD:
            kept = sorted(near, key=lambda peer: distance(near[peer], key))[:_TOLD]
            self._near[key] = {peer: near[peer] for peer in kept}
