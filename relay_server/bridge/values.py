"""hivemind's values: msgpack with two extension types of its own."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from msgspec.msgpack import Ext

from pyodide_node.errors import ProtocolError
from pyodide_node.wire.malformed import MALFORMED
from relay_server.bridge import limits

__all__ = [
    "DICTIONARY",
    "REGULAR",
    "Entry",
    "key_of",
    "pack",
    "pack_dictionary",
    "subkey_of",
    "unpack_dictionary",
]

_TUPLE: Final = 0x40
_DICTIONARY: Final = 0x50

REGULAR: Final = b"\xc0"
"""In place of a subkey: the value is all that is under its key."""
DICTIONARY: Final = b""
"""In place of a subkey: the value is a whole dictionary."""

Entry = tuple[bytes, bytes, float]
"""Subkey and value, each in msgpack, and when they expire."""

_SUBKEY = msgspec.msgpack.Decoder()
_EXT = msgspec.msgpack.Decoder(Ext)
_ENTRIES = msgspec.msgpack.Decoder(
    tuple[
        float | int | None,
        float,
        Annotated[list[tuple[msgspec.Raw, bytes, float]], Meta(max_length=limits.SUBKEYS)],
    ]
)


def key_of(name: str) -> bytes:
    """Where in the DHT `name` lies: 20 bytes."""
    return hashlib.sha1(pack(name), usedforsecurity=False).digest()


def pack(value: object) -> bytes:
    """`value` as hivemind packs it: a tuple stays one."""
    return msgspec.msgpack.encode(_marked(value))


def subkey_of(packed: bytes) -> bytes:
    """The one packed form of a subkey. Raises ProtocolError for what cannot be one.

    Text, bytes and whole numbers are keys in everybody's dictionaries; a list there would break
    all who read them.
    """
    if len(packed) > limits.SUBKEY:
        raise ProtocolError(f"a subkey of {len(packed)} bytes; at most {limits.SUBKEY}")
    try:
        subkey = _SUBKEY.decode(packed)
    except (*MALFORMED, TypeError) as error:  # of maps whose keys are none
        raise ProtocolError(f"a malformed subkey: {error}") from None
    if type(subkey) not in (str, bytes, int):
        raise ProtocolError("a subkey is text, bytes or a whole number")
    return msgspec.msgpack.encode(subkey)


def pack_dictionary(entries: Sequence[Entry]) -> bytes:
    """hivemind's DictionaryDHTValue; it has no limit of its own."""
    latest = max((expires for _, _, expires in entries), default=-math.inf)
    listed = [(msgspec.Raw(subkey), value, expires) for subkey, value, expires in entries]
    return msgspec.msgpack.encode(
        Ext(_DICTIONARY, msgspec.msgpack.encode([math.inf, latest, listed]))
    )


def unpack_dictionary(packed: bytes) -> list[Entry]:
    """Raises ProtocolError."""
    try:
        ext = _EXT.decode(packed)
        if ext.code != _DICTIONARY:
            raise ProtocolError(f"a dictionary is of extension type {ext.code}, not {_DICTIONARY}")
        _, _, entries = _ENTRIES.decode(ext.data)
    except MALFORMED as error:
        raise ProtocolError(f"a malformed dictionary: {error}") from None
    return [(subkey_of(bytes(subkey)), value, expires) for subkey, value, expires in entries]


def _marked(value: Any) -> Any:
    match value:
        case tuple():
            return Ext(_TUPLE, msgspec.msgpack.encode([_marked(one) for one in value]))
        case list():
            return [_marked(one) for one in value]
        case dict():
            return {key: _marked(one) for key, one in value.items()}
    return value
