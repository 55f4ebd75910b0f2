"""Names of a node, all made of its Ed25519 public key."""

from __future__ import annotations

import base58

from pyodide_node.errors import ProtocolError

__all__ = ["did_key", "key_of_did", "peer_id", "public_key_of", "short"]

# libp2p peer ids, "identity" multihash of the protobuf-encoded key:
# 0x00 identity, 0x24 length, 0x08 0x01 Type=Ed25519, 0x12 0x20 Data of 32 bytes.
_PREFIX = bytes.fromhex("002408011220")
_DID_PREFIX = bytes.fromhex("ed01")  # multicodec ed25519-pub


def peer_id(public_key: bytes) -> str:
    """libp2p's peer id, "12D3Koo…"."""
    return base58.b58encode(_PREFIX + public_key).decode()


def public_key_of(peer: str) -> bytes:
    """The key in a peer id. Raises ProtocolError when it is not an Ed25519 one."""
    try:
        decoded = base58.b58decode(peer)
    except ValueError:
        decoded = b""
    if len(decoded) != len(_PREFIX) + 32 or not decoded.startswith(_PREFIX):
        raise ProtocolError("not an Ed25519 peer id", peer=peer[:64])
    return decoded[len(_PREFIX) :]


def did_key(public_key: bytes) -> str:
    """The same key as a DID (did:key method, W3C CCG)."""
    return "did:key:z" + base58.b58encode(_DID_PREFIX + public_key).decode()


def key_of_did(did: str) -> bytes:
    """The key in an Ed25519 did:key. Raises ProtocolError when it is not one."""
    try:
        decoded = base58.b58decode(did.removeprefix("did:key:z"))
    except ValueError:
        decoded = b""
    named = did.startswith("did:key:z") and decoded.startswith(_DID_PREFIX)
    if not named or len(decoded) != len(_DID_PREFIX) + 32:
        raise ProtocolError("not the did:key of an Ed25519 key", did=did[:64])
    return decoded[len(_DID_PREFIX) :]


def short(public_key: bytes) -> str:
    """The tail of the peer id: enough to tell peers apart in a log line."""
    return peer_id(public_key)[-8:]
