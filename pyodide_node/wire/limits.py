"""Every limit of the wire, with its reason. Bytes and seconds unless the name says otherwise."""

from __future__ import annotations

from typing import Final

VERSION: Final = 1
"""Protocol version in every frame header; another version is refused, never guessed at."""

CHANNEL_MESSAGE: Final = 4096
"""One data-channel send, header included: SCTP sends four packets a call and then waits a round
trip, so larger sends cost round trips."""

MESSAGE: Final = 4 * 1024 * 1024
"""One reassembled message: a prefill chunk of 128 positions at hidden size 8192 in float32."""

BODY: Final = 60_000
"""The msgpack body of a message; its length field has 16 bits."""

SOCKET_MESSAGE: Final = MESSAGE + 1024
"""One WebSocket message: a whole message plus seal, envelope and header."""

PARTIAL_MESSAGES: Final = 32
"""Messages of one link that may be incomplete at once; an honest sender interleaves few."""

PARTIAL_BYTES: Final = 2 * MESSAGE
"""Memory that the incomplete messages of one link may claim."""

REPLAY_WINDOW: Final = 1024
"""Sequence numbers remembered per link: two paths can reorder messages by this much."""

RECORD: Final = 2048
"""One signed record: an announcement is about 300 bytes."""

RECORD_TTL: Final = 360.0
"""Longest life of a record: three announcements of 120 s may be missed."""

CLOCK_SKEW: Final = 120.0
"""How far another's clock may be off before its records and handshakes are refused."""

RECORDS_PER_MESSAGE: Final = 25
"""Records in one message to a subscriber: 25 of the largest stay under BODY."""

HIGH_WATER: Final = 1024 * 1024
LOW_WATER: Final = 256 * 1024
"""A sender waits above the first until its path has drained below the second."""

OUTBOX: Final = 4 * MESSAGE
"""Bytes that may wait for one peer before sending to it fails: a slow peer costs only itself."""

RECEIPTS: Final = 16
"""Messages that one PathAck speaks of at most: the sender keeps each until then."""

UNHEARD: Final = 2 * MESSAGE
"""Bytes kept for one peer until it says that it has them; beyond it the oldest are let go."""

ICE_DEADLINE: Final = 5.0
"""A failed ICE stays in "checking" for ever; what has not connected by now will not."""

ICE_SERVERS: Final = 16
"""STUN and TURN servers of one relay: the longest message of them is 9 KB."""

HANDSHAKE_DEADLINE: Final = 10.0
"""For the relay's challenge and for sealing a link, each."""

POSITIONS: Final = 131_072
"""Longest context that a session may ask for."""

PREFILL_CHUNK: Final = 64
"""Positions in one step of a prompt: other sessions get their turn between two of them."""

SESSIONS_PER_PEER: Final = 8
SESSIONS: Final = 64
"""Sessions that one stage keeps for one asker, and in all."""

QUEUED_STEPS: Final = 8
"""Steps of one session that may wait at a stage; an asker keeps fewer in flight."""

PART: Final = 1 << 22
"""A part of a model's files: a piece of 1 MiB, or the list of the pieces of a file of 4 GiB."""

PART_SLICE: Final = 64 * 1024
"""Bytes of a part in one message: what an answer's step may have to wait behind."""

PART_REQUESTS: Final = 8
"""Slices that one peer may have asked for and not got; a fetching node keeps fewer under way."""
