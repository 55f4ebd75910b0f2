"""What the DHT may hold: records under the names of who signed them, and nothing else.

A key is "/kwn/" for a node's announcement, "/kwr/" for a relay's record, and the public key in
base58: 49 characters, because libp2p 0.8.1 resets who asks it for the way to more than 50.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import base58

from pyodide_node.errors import KwaaiNetError, RecordError
from pyodide_node.mesh import announcement
from pyodide_node.mesh.announcement import decode_announcement
from pyodide_node.wire import relays
from pyodide_node.wire.records import Record, check_record, unpack_record
from pyodide_node.wire.relays import decode_relay
from relay_server.entry import verify

__all__ = ["Values", "check_value", "value_key"]

_NAMESPACES: Final = {announcement.KIND: "kwn", relays.KIND: "kwr"}


def value_key(kind: str, public_key: bytes) -> str:
    """The DHT's name for the record of this kind and key."""
    return f"/{_NAMESPACES.get(kind, 'unknown')}/{base58.b58encode(public_key).decode()}"


def check_value(key: str, value: bytes, now: float) -> Record:
    """The record under this key. Raises RecordError for whatever may not lie there."""
    record = check_record(verify, value, now)
    if record.kind == announcement.KIND:
        decode_announcement(record)
    else:
        decode_relay(record)
    if value_key(record.kind, record.public_key) != key:
        raise RecordError("a record lies under the name of another", kind=record.kind)
    return record


class Values:
    """The two calls of libp2p's `Validator`; `refused()` counts."""

    namespaces = tuple(_NAMESPACES.values())

    def __init__(self, refused: Callable[[], None], wall: Callable[[], float] = time.time) -> None:
        self._refused = refused
        self._wall = wall

    def validate(self, key: str, value: bytes) -> None:
        """Raises RecordError, which libp2p takes for a no."""
        try:
            check_value(key, value, self._wall())
        except RecordError:
            self._refused()
            raise

    def select(self, key: str, values: list[bytes]) -> int:
        """The newest of these; of two with one number the first."""
        return max(range(len(values)), key=lambda i: (self._number(values[i]), -i))

    def _number(self, value: bytes) -> int:
        try:
            return unpack_record(value, self._wall()).number
        except KwaaiNetError:
            return -1
