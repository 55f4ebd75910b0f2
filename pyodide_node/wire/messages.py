"""The bodies of frames: one struct a message, checked on the way in.

Structs travel as msgpack arrays in field order; the frame's `type` says which struct it is.
Relay messages (types below 32) go between a node and its relay; peer messages go between two
nodes, sealed or by data channel, and a relay never sees one.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from pyodide_node.errors import LocalError, ProtocolError
from pyodide_node.wire import limits
from pyodide_node.wire.frames import Buffer, Frame
from pyodide_node.wire.malformed import MALFORMED

__all__ = [
    "Challenge",
    "CloseSession",
    "Forward",
    "Forwarded",
    "Gone",
    "Hello",
    "IceServer",
    "IceServers",
    "KeyReply",
    "KeyRequest",
    "Message",
    "OpenSession",
    "PartRefused",
    "PartRequest",
    "PartSlice",
    "PartsHeld",
    "PartsQuery",
    "PathAck",
    "PathPing",
    "PathPong",
    "Ping",
    "Pong",
    "Publish",
    "Records",
    "Refused",
    "RelayList",
    "Result",
    "SessionOpened",
    "SignalMessage",
    "StageError",
    "StageReport",
    "Step",
    "Subscribe",
    "Undelivered",
    "Welcome",
    "decode",
    "hello_bytes",
    "to_frame",
]

PublicKey = Annotated[bytes, Meta(min_length=32, max_length=32)]
Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]
Nonce = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
SessionId = Annotated[bytes, Meta(min_length=16, max_length=16)]
Token = Annotated[int, Meta(ge=0, lt=2**53)]
Block = Annotated[int, Meta(ge=0, le=1024)]
HopIndex = Annotated[int, Meta(ge=0, lt=256)]
Position = Annotated[int, Meta(ge=0, lt=limits.POSITIONS)]
PartNumber = Annotated[int, Meta(ge=0, lt=2**24)]
Count = Annotated[int, Meta(ge=1, le=4096)]
Code = Annotated[str, Meta(max_length=64)]
Text = Annotated[str, Meta(max_length=1024)]
Url = Annotated[str, Meta(max_length=256)]
RecordBytes = Annotated[bytes, Meta(max_length=limits.RECORD)]


class Message(Struct, frozen=True, array_like=True):
    """Root of all messages; `TYPE` is the frame's."""


# --- node ⇄ relay -------------------------------------------------------------------------


class Challenge(Message, frozen=True):
    """Relay → node, first: prove who you are, over this nonce."""

    nonce: Nonce


class Hello(Message, frozen=True):
    """Node → relay: the signature is over `hello_bytes(nonce, audience)`.

    `audience` is the host the node dialled, so that a relay cannot pass a challenge of another
    relay on and enter there as this node.
    """

    public_key: PublicKey
    audience: Url
    signature: Signature


class IceServer(Struct, frozen=True, array_like=True):
    """A STUN server, or a TURN server (RFC 7065) with what it asks for; never printed whole."""

    url: Url
    username: Annotated[str, Meta(max_length=256)] = ""
    credential: Annotated[str, Meta(max_length=256)] = ""

    def __repr__(self) -> str:
        return f"IceServer({self.url!r})"


class Welcome(Message, frozen=True):
    """Relay → node: you are in; these STUN servers you may use."""

    ice_servers: Annotated[list[Url], Meta(max_length=8)]


class Publish(Message, frozen=True):
    """Node → relay: store and pass on this signed record."""

    record: RecordBytes


class Subscribe(Message, frozen=True):
    """Node → relay: send the records of this model, now and as they change."""

    model: Hash


class Records(Message, frozen=True):
    """Relay → node: signed records, to be verified by whoever receives them."""

    records: Annotated[list[RecordBytes], Meta(max_length=limits.RECORDS_PER_MESSAGE)]


class Gone(Message, frozen=True):
    """Relay → node: a hint, not a proof: this peer left the relay."""

    peer: PublicKey


class IceServers(Message, frozen=True):
    """Relay → node: use these in place of those you were told of before. Sent after the Welcome
    where there is TURN, and again before its credentials end."""

    ice_servers: Annotated[list[IceServer], Meta(max_length=limits.ICE_SERVERS)]


class Forward(Message, frozen=True):
    """Node → relay: hand the payload to this peer. What is in it the relay cannot read."""

    to: PublicKey


class Forwarded(Message, frozen=True):
    """Relay → node: a payload from this peer, whose key the relay has checked."""

    sender: PublicKey


class Undelivered(Message, frozen=True):
    """Relay → node: that peer is not here, or its queue is full."""

    to: PublicKey
    code: Code


class Ping(Message, frozen=True):
    token: Token


class Pong(Message, frozen=True):
    token: Token


class Refused(Message, frozen=True):
    """Relay → node, before it closes: what was wrong, for people."""

    code: Code
    message: Text


class RelayList(Message, frozen=True):
    """Relay → node, right after it is let in and when they change: the signed records of all
    relays that it knows, its own first. Announcements name their node's relay by its key, which
    is found here; a relay that others do not know sends none."""

    records: Annotated[list[RecordBytes], Meta(max_length=limits.RECORDS_PER_MESSAGE)]


# --- node ⇄ node --------------------------------------------------------------------------


class SignalMessage(Message, frozen=True):
    """WebRTC signalling. It travels sealed, so its DTLS fingerprint is authentic and the relay
    learns no address. `attempt` numbers the initiator's tries."""

    attempt: Annotated[int, Meta(ge=0, lt=2**31)]
    kind: Literal["offer", "answer", "candidate"]
    sdp: Annotated[str, Meta(max_length=16_384)]
    mid: Annotated[str, Meta(max_length=64)]
    line: Annotated[int, Meta(ge=0, le=64)]


class PathPing(Message, frozen=True):
    """Measures one path: the answer comes back by the path that it came by."""

    token: Token


class PathPong(Message, frozen=True):
    token: Token


class PathAck(Message, frozen=True):
    """These messages came by the data channel: they need not be sent again when it dies."""

    sequences: Annotated[
        list[Annotated[int, Meta(ge=0, lt=2**32)]], Meta(max_length=limits.RECEIPTS)
    ]


class OpenSession(Message, frozen=True):
    """Asker → stage: keep KV for blocks [first, last) and take steps from `previous`."""

    session: SessionId
    hop: HopIndex
    model: Hash
    first: Block
    last: Block
    capacity: Annotated[int, Meta(ge=1, le=limits.POSITIONS)]
    previous: PublicKey
    next: PublicKey
    """The next stage, or the asker for the last one."""
    final: bool


class SessionOpened(Message, frozen=True):
    session: SessionId
    hop: HopIndex


class Step(Message, frozen=True):
    """Activations float32[count, hidden] for positions [position, position + count)."""

    session: SessionId
    hop: HopIndex
    position: Position
    count: Count


class Result(Message, frozen=True):
    """Final stage → asker: float32[1, hidden] of the last position of that step."""

    session: SessionId
    position: Position


class StageError(Message, frozen=True):
    """Stage → asker: this session cannot go on here."""

    session: SessionId
    hop: HopIndex
    code: Code
    message: Text


class StageReport(Message, frozen=True):
    """Stage → asker, about once a second while steps come: how it goes there, for people."""

    session: SessionId
    hop: HopIndex
    path: Literal["webrtc", "relay", "local"]
    """By which path the last step arrived."""
    step_ms: Annotated[float, Meta(ge=0, lt=1e9)]
    """Compute time of one position of the last step, without waiting."""


class KeyRequest(Message, frozen=True):
    """Node → keeper of a private model: its key, please. The link says who asks."""

    model: Hash


class KeyReply(Message, frozen=True):
    """The key, 32 bytes; none for a peer that it was not granted to."""

    model: Hash
    key: Annotated[bytes, Meta(max_length=32)]


class CloseSession(Message, frozen=True):
    session: SessionId


class PartsQuery(Message, frozen=True):
    """Node → node: which parts of this model's files do you have?"""

    model: Hash


class PartsHeld(Message, frozen=True):
    """The answer. Its payload is two bitmaps of one length, a bit for each part as
    `inference.parts` numbers them, lowest first: what is here, and what is on its way here from
    elsewhere than peers."""

    model: Hash


class PartRequest(Message, frozen=True):
    """Node → node: send `length` bytes from `offset` of this part. Small slices, asked for one
    by one: an answer's step never waits behind a whole part."""

    token: Token
    model: Hash
    part: PartNumber
    offset: Annotated[int, Meta(ge=0, lt=limits.PART)]
    length: Annotated[int, Meta(ge=1, le=limits.PART_SLICE)]


class PartSlice(Message, frozen=True):
    """The bytes of the request with this token."""

    token: Token


class PartRefused(Message, frozen=True):
    """The request with this token is not answered: "missing" here, or this node is "busy"."""

    token: Token
    code: Code


_TYPES: dict[int, type[Message]] = {
    1: Challenge,
    2: Hello,
    3: Welcome,
    4: Publish,
    5: Subscribe,
    6: Records,
    7: Gone,
    8: Forward,
    9: Forwarded,
    10: Undelivered,
    11: Ping,
    12: Pong,
    13: Refused,
    14: IceServers,
    15: RelayList,
    32: SignalMessage,
    33: PathPing,
    34: PathPong,
    35: PathAck,
    40: OpenSession,
    41: SessionOpened,
    42: Step,
    43: Result,
    44: StageError,
    45: CloseSession,
    46: StageReport,
    47: PartsQuery,
    48: PartsHeld,
    49: PartRequest,
    50: PartSlice,
    51: PartRefused,
    60: KeyRequest,
    61: KeyReply,
}
_NUMBERS = {struct: number for number, struct in _TYPES.items()}
_DECODERS: dict[int, Any] = {n: msgspec.msgpack.Decoder(struct) for n, struct in _TYPES.items()}
_ENCODER = msgspec.msgpack.Encoder()


def to_frame(
    message: Message, payload: Buffer = b"", *, stream: int = 0, sequence: int = 0
) -> Frame:
    """The frame that carries `message` and its tensor."""
    kind = _NUMBERS.get(type(message))
    if kind is None:
        raise LocalError(f"{type(message).__name__} has no frame type; add it to messages.py")
    return Frame(
        type=kind,
        stream=stream,
        sequence=sequence,
        body=_ENCODER.encode(message),
        payload=payload,
    )


def decode(frame: Frame) -> Message:
    """The message in a frame. Raises ProtocolError for an unknown type or a malformed body."""
    decoder = _DECODERS.get(frame.type)
    if decoder is None:
        raise ProtocolError(f"message type {frame.type} is not known here", type=frame.type)
    try:
        message: Message = decoder.decode(frame.body)
    except MALFORMED as error:
        name = _TYPES[frame.type].__name__
        raise ProtocolError(f"a malformed {name}: {error}", type=frame.type) from None
    return message


def hello_bytes(nonce: bytes, audience: str) -> bytes:
    """What a node signs to enter a relay."""
    return b"kwaainet/hello/1\0" + nonce + audience.encode()
