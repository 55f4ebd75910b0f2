"""What the bridge takes from strangers, each with its reason. Bytes and seconds unless the name
says otherwise."""

from __future__ import annotations

from typing import Final

MESSAGE: Final = 2 * 1024 * 1024
"""One message of the DHT: half of what hivemind's daemon carries, and all that hivemind sends."""

STORE_KEYS: Final = 1024
FIND_KEYS: Final = 512
"""Records of one request: Petals stores and looks up a key for each block, at most about 130."""

ANSWER: Final = 1024 * 1024
"""Values of one answer together; further keys are answered without."""

KEY: Final = 20
"""SHA-1."""

SUBKEY: Final = 1024
"""A peer id takes 54 bytes, an owner's RSA key of 4096 bits about 750."""

VALUE: Final = 16 * 1024
"""What a Petals server tells of itself takes 1 to 3 KB."""

SUBKEYS: Final = 4096
"""Under one key: servers of one block."""

RECORDS: Final = 50_000
RECORD_BYTES: Final = 32 * 1024 * 1024
"""Kept for others, counted with OVERHEAD each; beyond either, what expires first goes."""

OVERHEAD: Final = 256
"""What Python takes for one record beside its own bytes."""

LIFE: Final = 24 * 3600.0
"""Longest life of a record: libp2p's own; servers of Petals renew every minute."""

SIGNED: Final = 8 * 1024
"""A value with a signature: checking one costs more the longer it is."""

PEER_ID: Final = 64
"""A multihash: 38 bytes of an Ed25519 key, 34 of others."""

BUCKET: Final = 20
"""Peers of one distance that are remembered, as in hivemind."""

REPLICAS: Final = 5
"""Peers that are given a record, as in hivemind."""

STALE: Final = 300.0
"""A peer that was silent for so long makes room for another."""

CALLS: Final = 32
CALLS_PER_PEER: Final = 8
"""Calls that are read or answered at once; more are refused before they are read."""

CALLS_PER_SECOND: Final = 50.0
CALL_BURST: Final = 200.0
"""Of one peer. A lookup of a model's blocks is a handful of calls."""

CONNECTIONS: Final = 256
CONNECTIONS_PER_PEER: Final = 3

CALL: Final = 5.0
"""For one call, ours or theirs: hivemind waits three."""

DIAL: Final = 5.0
"""For a connection and what it negotiates."""

LOOKUP_CALLS: Final = 200
"""Calls of one lookup at most, whatever peers answer."""

MAP: Final = 8 * 1024 * 1024
"""A relay's map."""
