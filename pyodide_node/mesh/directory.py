"""Who serves what: verified announcements, the newest of each peer. Sans-IO.

Relays and nodes keep the same directory. It never trusts: callers verify a record's signature
(`wire.records.verify_record`) before they admit it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pyodide_node.errors import RecordError
from pyodide_node.mesh.announcement import Announcement, decode_announcement
from pyodide_node.wire.records import Record

__all__ = ["Directory", "Entry", "Watch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One peer's valid announcement, and the bytes to pass on."""

    record: Record
    announcement: Announcement
    signed: bytes

    @property
    def public_key(self) -> bytes:
        return self.record.public_key


Watch = Callable[[Entry | None, Entry | None], None]
"""Told what a peer announced before, and what it announces now; None for nothing."""


class Directory:
    """At most `limit` entries, one a peer: a key costs nothing, memory does."""

    def __init__(self, limit: int = 20_000, watch: Watch = lambda before, now: None) -> None:
        self._limit = limit
        self._watch = watch
        self._entries: dict[bytes, Entry] = {}
        self._numbers: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def get(self, public_key: bytes) -> Entry | None:
        return self._entries.get(public_key)

    def admit(self, record: Record, signed: bytes, now: float) -> bool:
        """Keep a verified record; False when it is not newer than what is held.

        Raises RecordError when it is not an announcement or there is no room.
        """
        announcement = decode_announcement(record)
        if record.number <= self._numbers.get(record.public_key, -1):
            return False
        if record.public_key not in self._entries and len(self._entries) >= self._limit:
            self.expire(now)
            if len(self._entries) >= self._limit:
                raise RecordError("the directory is full; try another relay", limit=self._limit)
        self._numbers[record.public_key] = record.number
        before = self._entries.get(record.public_key)
        entry = Entry(record=record, announcement=announcement, signed=signed)
        self._entries[record.public_key] = entry
        self._watch(before, entry)
        return True

    def entries(self, model: bytes, now: float) -> list[Entry]:
        """Unexpired entries for a model, in the order of their keys."""
        found = [
            entry
            for entry in self._entries.values()
            if entry.announcement.model == model and entry.record.expires > now
        ]
        return sorted(found, key=lambda entry: entry.public_key)

    def remove(self, public_key: bytes) -> Entry | None:
        """Forget a peer that left. Its record's number goes too: it may come back."""
        self._numbers.pop(public_key, None)
        gone = self._entries.pop(public_key, None)
        if gone is not None:
            self._watch(gone, None)
        return gone

    def expire(self, now: float) -> list[bytes]:
        """Forget what has expired; the keys of those peers."""
        gone = [key for key, entry in self._entries.items() if entry.record.expires <= now]
        for key in gone:
            self.remove(key)
        return gone
