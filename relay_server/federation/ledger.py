"""What one relay believes of the others. Sans-IO: bulletins in, changes out.

Nothing is taken on another's word: a relay speaks for itself and for nodes that say, signed, that
it is their home. So whatever a hostile relay tells, it harms nobody but its own nodes; and each
has room for so many records and no more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from pyodide_node.errors import RecordError
from pyodide_node.mesh.announcement import decode_announcement
from pyodide_node.mesh.peer import peer_id
from pyodide_node.wire.records import Record, check_record, unpack_record
from pyodide_node.wire.relays import RelayInfo, decode_relay
from relay_server.entry import verify
from relay_server.federation.bulletin import Bulletin, decode_bulletin
from relay_server.rates import Rate

__all__ = ["Changes", "KnownRelay", "Ledger"]

_SILENCE: Final = 90.0
"""Seconds without a word, of three at least, after which a relay is gone."""

_GRACE: Final = 10.0
"""Seconds for a relay whose connection broke to come back, as after a restart."""

_RATE: Final = Rate(per_second=256, burst=16_384)
"""Records and departures of one relay: its 10,000 nodes announce 83 a second, all of them at once
when it is met."""

_BULLETINS: Final = Rate(per_second=8, burst=512)


@dataclass(slots=True)
class KnownRelay:
    key: bytes
    record: Record
    signed: bytes
    info: RelayInfo
    heard: float
    lost: float | None = None
    """When its connection broke; none while it stands, or where there never was one."""
    nodes: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    """Number and expiry of what each announced last."""
    departed: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    """The last numbers of nodes that left, and when their records are expired anyway."""

    @property
    def name(self) -> str:
        return peer_id(self.key)


@dataclass(slots=True)
class Changes:
    """What the relay's own directory should follow."""

    announced: list[tuple[Record, bytes]] = field(default_factory=list)
    departed: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Node and the relay that it was on."""
    introduced: list[bytes] = field(default_factory=list)
    """Records of relays that are new."""
    relays: bool = False
    """Whether others are known now, or the same ones by other addresses."""


class Ledger:
    """Keys are public keys, times are seconds since 1970."""

    def __init__(
        self,
        own: bytes,
        *,
        max_relays: int = 24,
        max_records: int = 20_000,
        max_per_relay: int = 5_000,
        only: Iterable[bytes] = (),
        pinned: Iterable[bytes] = (),
    ) -> None:
        """`only` these relays are believed, if any are named; `pinned` ones always have room."""
        self._own = own
        self._max_relays = max_relays
        self._max_records = max_records
        self.max_per_relay = max_per_relay
        self._only = frozenset(only)
        self._pinned = frozenset(pinned)
        self._relays: dict[bytes, KnownRelay] = {}
        self._rates: dict[bytes, tuple[float, float]] = {}
        self._count = 0

    def __len__(self) -> int:
        """Announcements held, of all relays."""
        return self._count

    @property
    def relays(self) -> list[KnownRelay]:
        """In the order of their keys, so that what nodes are told does not change by itself."""
        return [self._relays[key] for key in sorted(self._relays)]

    def take(self, origin: bytes, data: bytes, now: float) -> Changes:
        """A bulletin of the relay `origin`, whose signature holds.

        What is merely older than what is held is passed over. Raises RecordError or ProtocolError
        for what an honest relay would not say; nothing of it is kept then.
        """
        if origin == self._own:
            return Changes()
        if self._only and origin not in self._only:
            raise RecordError("this relay is not one of those that the operator named")
        bulletin = decode_bulletin(data)
        self._spend(origin, bulletin, now)
        own = [self._relay_record(origin, signed, now) for signed in bulletin.relay]
        fresh = [one for one in bulletin.records if self._fresh(origin, one, now)]
        records = [(self._announcement(origin, one, now), one) for one in fresh]
        changes = Changes()
        for record, signed, info in own:
            changes.relays |= self._meet(record, signed, info, now)
            changes.introduced.append(signed)
        relay = self._relays.get(origin)
        if relay is None:
            raise RecordError("announcements of a relay that did not introduce itself")
        relay.heard = now
        for record, signed in records:
            if self._admit(relay, record):
                changes.announced.append((record, signed))
        for gone in bulletin.departed:
            self._depart(relay, gone.public_key, gone.number, now, changes)
        return changes

    def connected(self, key: bytes) -> None:
        """A connection to this peer stands, whether it is a known relay or not."""
        if key in self._relays:
            self._relays[key].lost = None

    def disconnected(self, key: bytes, now: float) -> None:
        if key in self._relays:
            self._relays[key].lost = now

    def sweep(self, now: float) -> Changes:
        """Forget who fell silent and what has expired."""
        changes = Changes()
        for key, relay in list(self._relays.items()):
            lost = relay.lost is not None and relay.heard < relay.lost < now - _GRACE
            if lost or now - relay.heard > _SILENCE or relay.record.expires <= now:
                changes.departed += [(node, key) for node in relay.nodes]
                changes.relays = True
                self._count -= len(relay.nodes)
                del self._relays[key]
                continue
            for node in [n for n, (_, until) in relay.nodes.items() if until <= now]:
                self._remove(relay, node, changes)
            for node in [n for n, (_, until) in relay.departed.items() if until <= now]:
                del relay.departed[node]
        self._rates = {key: state for key, state in self._rates.items() if max(state) > now}
        return changes

    # --- inside ---------------------------------------------------------------------------

    def _spend(self, origin: bytes, bulletin: Bulletin, now: float) -> None:
        units, messages = self._rates.get(origin, (0.0, 0.0))
        count = len(bulletin.records) + len(bulletin.departed)
        units = _RATE.spend(units, now, count)
        messages = _BULLETINS.spend(messages, now)
        if _RATE.excess(units, now) > 0 or _BULLETINS.excess(messages, now) > 0:
            raise RecordError("this relay says more than any relay has to say")
        if origin in self._relays or len(self._rates) < 4 * self._max_relays:
            self._rates[origin] = units, messages

    def _relay_record(
        self, origin: bytes, signed: bytes, now: float
    ) -> tuple[Record, bytes, RelayInfo]:
        record = check_record(verify, signed, now)
        if record.public_key != origin:
            raise RecordError("a relay speaks for itself only")
        return record, signed, decode_relay(record)

    def _fresh(self, origin: bytes, signed: bytes, now: float) -> bool:
        """Whether it may be newer than what is held: only that is worth checking a signature."""
        record, relay = unpack_record(signed, now), self._relays.get(origin)
        held = relay.nodes.get(record.public_key) if relay is not None else None
        return held is None or record.number > held[0]

    def _announcement(self, origin: bytes, signed: bytes, now: float) -> Record:
        record = check_record(verify, signed, now)
        if decode_announcement(record).home != origin:
            raise RecordError("a relay speaks for nodes only whose home it is")
        return record

    def _meet(self, record: Record, signed: bytes, info: RelayInfo, now: float) -> bool:
        held = self._relays.get(record.public_key)
        if held is None:
            self._make_room(record.public_key)
            self._relays[record.public_key] = KnownRelay(
                record.public_key, record, signed, info, now
            )
            return True
        if record.number <= held.record.number:
            return False
        changed = held.info != info
        held.record, held.signed, held.info = record, signed, info
        return changed

    def _make_room(self, key: bytes) -> None:
        room = self._max_relays - len(self._pinned)
        if key not in self._pinned and len(self._relays.keys() - self._pinned) >= room:
            raise RecordError("as many relays are known as there is room for")

    def _admit(self, relay: KnownRelay, record: Record) -> bool:
        node = record.public_key
        held = relay.nodes.get(node)
        newest = max(held or (-1, 0), relay.departed.get(node, (-1, 0)))
        if record.number <= newest[0]:
            return False
        if held is None:
            if len(relay.nodes) >= self.max_per_relay or self._count >= self._max_records:
                return False
            self._count += 1
        relay.nodes[node] = record.number, record.expires
        return True

    def _depart(
        self, relay: KnownRelay, node: bytes, number: int, now: float, changes: Changes
    ) -> None:
        held = relay.nodes.get(node)
        if held is not None and held[0] <= number:
            relay.departed[node] = number, held[1]
            self._remove(relay, node, changes)

    def _remove(self, relay: KnownRelay, node: bytes, changes: Changes) -> None:
        del relay.nodes[node]
        self._count -= 1
        changes.departed.append((node, relay.key))
