"""Who else is in the DHT, by distance: Kademlia's buckets. Sans-IO."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Final

from relay_server.bridge import limits

__all__ = ["PeerTable", "distance"]

_BITS: Final = 8 * limits.KEY


def distance(one: bytes, other: bytes) -> int:
    return int.from_bytes(one) ^ int.from_bytes(other)


@dataclass(slots=True)
class _Known:
    node: bytes
    place: int
    """The same as a number."""
    heard: float


class PeerTable:
    """Peers by node id; `own` is ours. A peer has one id: a second one takes the first one's place,
    so that one peer cannot fill a bucket."""

    def __init__(self, own: bytes) -> None:
        self.own = own
        self._known: dict[bytes, _Known] = {}
        self._buckets: list[dict[bytes, None]] = [{} for _ in range(_BITS + 1)]

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, peer: bytes) -> bool:
        return peer in self._known

    def heard(self, node: bytes, peer: bytes, now: float) -> bool:
        """A peer answered or asked; whether it is known from now on.

        In a full bucket only who was silent for STALE seconds makes room: who has stayed is the
        likeliest to stay (Kademlia, section 2.4).
        """
        known = self._known.get(peer)
        if known is not None and known.node != node:
            self.remove(peer)
            known = None
        if known is None:
            bucket = self._buckets[self._index(node)]
            if node == self.own or not self._room(bucket, now):
                return False
            bucket[peer] = None
        self._known[peer] = _Known(node, int.from_bytes(node), now)
        return True

    def remove(self, peer: bytes) -> None:
        known = self._known.pop(peer, None)
        if known is not None:
            del self._buckets[self._index(known.node)][peer]

    def nearest(
        self, key: bytes, count: int, without: bytes | None = None
    ) -> list[tuple[bytes, bytes]]:
        """Node and peer ids of the `count` nearest to `key`, nearest first; not the node
        `without`."""
        place = int.from_bytes(key)
        found = (
            (known.place ^ place, known.node, peer)
            for peer, known in self._known.items()
            if known.node != without
        )
        return [(node, peer) for _, node, peer in heapq.nsmallest(count, found)]

    def _room(self, bucket: dict[bytes, None], now: float) -> bool:
        if len(bucket) < limits.BUCKET:
            return True
        oldest = min(bucket, key=lambda peer: self._known[peer].heard)
        if now - self._known[oldest].heard < limits.STALE:
            return False
        self.remove(oldest)
        return True

    def _index(self, node: bytes) -> int:
        return distance(self.own, node).bit_length()
