"""What the bridge answers to peers of the DHT. Sans-IO.

All that a peer can do wrong raises ProtocolError, whose message it is told; a record that may not
be kept is refused by itself, as in hivemind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from pyodide_node.errors import ProtocolError
from relay_server.bridge import limits
from relay_server.bridge.messages import (
    Find,
    Found,
    FoundAll,
    Item,
    Ping,
    Pong,
    Store,
    Stored,
)
from relay_server.bridge.peers import PeerTable
from relay_server.bridge.signatures import allowed
from relay_server.bridge.store import Held, RecordStore
from relay_server.bridge.values import DICTIONARY, REGULAR, subkey_of, unpack_dictionary

__all__ = ["Responder"]

_NOTHING: Final = Found()


class Responder:
    """One peer's table and records; `now()` gives seconds since 1970."""

    def __init__(
        self, table: PeerTable, now: Callable[[], float], store: RecordStore | None = None
    ) -> None:
        self.table = table
        self.store = store if store is not None else RecordStore()
        self._own: dict[bytes, dict[bytes, tuple[bytes, float]]] = {}
        self._now = now

    def announce(self, items: Iterable[Item]) -> None:
        """Hold records of our own: no peer can replace them here, nor crowd them out."""
        now = self._now()
        for key, held in list(self._own.items()):
            left = {subkey: one for subkey, one in held.items() if one[1] > now}
            self._own[key] = left
            if not left:
                del self._own[key]
        for item in items:
            self._own.setdefault(item.key, {})[item.subkey] = (item.value, item.expires)

    def ping(self, request: Ping, peer: bytes, available: bool) -> Pong:
        """`available`: whether we reached the sender, where it asked for that."""
        if available or not request.validate:
            self._heard(request.node, peer)
        return Pong(node=self.table.own, time=self._now(), available=available)

    def stored(self, request: Store, peer: bytes) -> Stored:
        self._heard(request.node, peer)
        return Stored(ok=[self._keep(item) for item in request.items], node=self.table.own)

    def found(self, request: Find, peer: bytes) -> FoundAll:
        self._heard(request.node, peer)
        room = limits.ANSWER
        results = []
        for key in request.keys:
            held = self._held(key)
            value = held.value if held is not None else None
            found = _NOTHING
            if held is not None and value is not None and len(value) <= room:
                room -= len(value)
                found = Found(value=value, dictionary=held.dictionary, expires=held.expires)
            near = self.table.nearest(key, limits.BUCKET, without=request.node)
            results.append(
                Found(
                    value=found.value,
                    dictionary=found.dictionary,
                    expires=found.expires,
                    near=near,
                )
            )
        return FoundAll(results=results, node=self.table.own)

    def _held(self, key: bytes) -> Held | None:
        now = self._now()
        held = self.store.get(key, now)
        own = [
            (subkey, value, expires)
            for subkey, (value, expires) in self._own.get(key, {}).items()
            if expires > now
        ]
        if not own:
            return held
        names = {subkey for subkey, _, _ in own}
        others = held.entries if held is not None and held.dictionary else []
        return Held(own + [entry for entry in others if entry[0] not in names])

    def _keep(self, item: Item) -> bool:
        try:
            if item.subkey == DICTIONARY:
                entries = unpack_dictionary(item.value)
                kept = [self._keep_one(Item(item.key, *entry)) for entry in entries]
                return all(kept)
            return self._keep_one(item)
        except ProtocolError:
            return False

    def _keep_one(self, item: Item) -> bool:
        now = self._now()
        # Written so that NaN is refused too.
        if not now < item.expires <= now + limits.LIFE or len(item.value) > limits.VALUE:
            return False
        subkey = REGULAR if item.subkey == REGULAR else subkey_of(item.subkey)
        own = self._own.get(item.key)
        if (own and (subkey == REGULAR or subkey in own)) or not allowed(item):
            return False
        return self.store.put(item.key, subkey, item.value, item.expires, now)

    def _heard(self, node: bytes | None, peer: bytes) -> None:
        if node is not None:
            self.table.heard(node, peer, self._now())
