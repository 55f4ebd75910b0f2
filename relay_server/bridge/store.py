"""What a DHT peer keeps for others until it expires, in bounded memory. Sans-IO.

As in hivemind, the record that lives longer replaces the other, a dictionary takes each subkey by
that rule, and whoever renews a record gives it a later end.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Final

from relay_server.bridge import limits
from relay_server.bridge.values import REGULAR, Entry, pack_dictionary

__all__ = ["Held", "RecordStore"]

_SLACK: Final = 64
"""Entries of the heap that may be out of date before it is made again."""


@dataclass(frozen=True, slots=True)
class Held:
    """What is under a key: one value under REGULAR, or a dictionary."""

    entries: list[Entry]

    @property
    def dictionary(self) -> bool:
        return self.entries[0][0] != REGULAR

    @property
    def expires(self) -> float:
        return max(expires for _, _, expires in self.entries)

    @property
    def value(self) -> bytes:
        """As it travels."""
        return pack_dictionary(self.entries) if self.dictionary else self.entries[0][1]


class RecordStore:
    """`records` and `size` bound it; what expires first makes room."""

    def __init__(self, records: int = limits.RECORDS, size: int = limits.RECORD_BYTES) -> None:
        self._most = records
        self._room = size
        self._keys: dict[bytes, dict[bytes, tuple[bytes, float]]] = {}
        self._heap: list[tuple[float, bytes, bytes]] = []
        self._count = 0
        self.size = 0
        """Bytes that it takes."""

    def __len__(self) -> int:
        return self._count

    def put(self, key: bytes, subkey: bytes, value: bytes, expires: float, now: float) -> bool:
        """Keep a record; False when what is held lives as long, or there is no room for it.

        `subkey` is REGULAR or in its one packed form. Times are seconds since 1970.
        """
        self.expire(now)
        held = self._keys.get(key, {})
        rivals = held if subkey == REGULAR else {subkey, REGULAR} & held.keys()
        if expires <= now or any(expires <= held[one][1] for one in rivals):
            return False
        if subkey not in held and len(held) >= limits.SUBKEYS:
            return False
        for one in list(rivals):
            self._remove(key, one)
        self._keys.setdefault(key, {})[subkey] = (value, expires)
        self._count += 1
        self.size += _size(subkey, value)
        self._push(expires, key, subkey)
        self._make_room()
        return subkey in self._keys.get(key, {})

    def get(self, key: bytes, now: float) -> Held | None:
        self.expire(now)
        held = self._keys.get(key)
        if not held:
            return None
        return Held([(subkey, value, expires) for subkey, (value, expires) in held.items()])

    def expire(self, now: float) -> None:
        """Forget what is over."""
        while self._heap and self._heap[0][0] <= now:
            self._pop()

    def _make_room(self) -> None:
        while self._count > self._most or self.size > self._room:
            self._pop()

    def _pop(self) -> None:
        """The next to expire; nothing of an entry that was replaced since."""
        expires, key, subkey = heapq.heappop(self._heap)
        held = self._keys.get(key, {}).get(subkey)
        if held is not None and held[1] == expires:
            self._remove(key, subkey)

    def _push(self, expires: float, key: bytes, subkey: bytes) -> None:
        heapq.heappush(self._heap, (expires, key, subkey))
        # A record that is renewed again and again must not fill the heap.
        if len(self._heap) > 2 * self._count + _SLACK:
            self._heap = [
                (entry[1], key, subkey)
                for key, held in self._keys.items()
                for subkey, entry in held.items()
            ]
            heapq.heapify(self._heap)

    def _remove(self, key: bytes, subkey: bytes) -> None:
        held = self._keys[key]
        value, _ = held.pop(subkey)
        self._count -= 1
        self.size -= _size(subkey, value)
        if not held:
            del self._keys[key]


def _size(subkey: bytes, value: bytes) -> int:
    return limits.OVERHEAD + limits.KEY + len(subkey) + len(value)
