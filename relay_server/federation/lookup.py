"""The DHT of one relay: whoever speaks Kademlia looks nodes and relays up in it. Runs in trio."""

from __future__ import annotations

import contextlib
import time
from typing import Any, Final

import trio
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.kad_dht.pb.kademlia_pb2 import Record as Value
from libp2p.records.validator import NamespacedValidator

from pyodide_node.errors import KwaaiNetError
from pyodide_node.wire.records import unpack_record
from relay_server.counters import Counters
from relay_server.federation.values import Values, value_key

__all__ = ["Lookup", "expired"]

_STORED: Final = 25_000
"""Values: a few more than announcements are taken from others."""
_SPREAD: Final = 32
"""Values waiting to be put at others; more are left to gossip, which reaches them anyway."""
_SPREAD_EVERY: Final = 0.25
_DEADLINE: Final = 10.0
_SWEEP_EVERY: Final = 5.0


class Lookup:
    """What the relay believes lies in its own store, so that every relay answers for all."""

    def __init__(self, host: Any, counters: Counters) -> None:
        def refused() -> None:
            counters.values_refused += 1

        values = Values(refused)
        self._spread: dict[str, bytes] = {}
        # The prefix is libp2p's own: 0.8.1 passes another over.
        self.dht = KadDHT(
            host,
            DHTMode.SERVER,
            validator=NamespacedValidator(dict.fromkeys(values.namespaces, values)),
            validator_changed=True,  # else /pk/ and /ipns/ would be taken too
            strict_validation=True,
        )

    async def get(self, kind: str, key: bytes) -> bytes | None:
        """The newest record of this kind and public key that the relays found have."""
        found: bytes | None = await self.dht.get_value(value_key(kind, key))
        return found

    async def met(self, peer: Any) -> None:
        """A peer that is connected; libp2p does not add it by itself."""
        await self.dht.add_peer(peer, skip_server_mode_check=True)

    def keep(self, signed: bytes, *, own: bool = False) -> None:
        """Have a verified record here, and (`own`) put it where others look for it."""
        try:
            record = unpack_record(signed, time.time())
        except KwaaiNetError:
            return
        store, name = self.dht.value_store, value_key(record.kind, record.public_key)
        key = name.encode()
        if key not in store.store and len(store.store) >= _STORED:
            return
        # Its own record format: unsigned, for what lies in it is signed.
        store.put_record(key, Value(key=key, value=signed))
        if own and len(self._spread) < _SPREAD:
            self._spread[name] = signed

    async def spread(self) -> None:
        while True:
            await trio.sleep(_SPREAD_EVERY)
            for name in list(self._spread)[:1]:
                signed = self._spread.pop(name)
                # A newer one may have come by; and libp2p's errors have no common root.
                with contextlib.suppress(Exception), trio.move_on_after(_DEADLINE):
                    await self.dht.put_value(name, signed)

    async def sweep(self) -> None:
        """libp2p keeps values for a day, and providers from whoever sends them."""
        while True:
            await trio.sleep(_SWEEP_EVERY)
            store, now = self.dht.value_store, time.time()
            held = list(store.store.items())
            for number, (name, (value, _)) in enumerate(held):
                if expired(value.value, now) or number < len(held) - _STORED:
                    store.remove(name)
            store.local_keys.clear()  # ours are put again as they are made again
            self.dht.provider_store.providers.clear()


def expired(signed: bytes, now: float) -> bool:
    try:
        unpack_record(signed, now)
    except KwaaiNetError:
        return True
    return False
