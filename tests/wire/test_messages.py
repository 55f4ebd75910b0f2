"""Every message round-trips, and no junk becomes one."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyodide_node.errors import LocalError, ProtocolError
from pyodide_node.wire import limits
from pyodide_node.wire.frames import Frame, encode, parse
from pyodide_node.wire.messages import (
    Challenge,
    CloseSession,
    Forward,
    Forwarded,
    Gone,
    Hello,
    IceServer,
    IceServers,
    KeyReply,
    KeyRequest,
    Message,
    OpenSession,
    PartRefused,
    PartRequest,
    PartsHeld,
    PartSlice,
    PartsQuery,
    PathAck,
    PathPing,
    PathPong,
    Ping,
    Pong,
    Publish,
    Records,
    Refused,
    RelayList,
    Result,
    SessionOpened,
    SignalMessage,
    StageError,
    StageReport,
    Step,
    Subscribe,
    Undelivered,
    Welcome,
    decode,
    hello_bytes,
    to_frame,
)

KEY, OTHER, SESSION = bytes(range(32)), bytes(32), bytes(range(16))

EXAMPLES: list[Message] = [
    Challenge(KEY),
    Hello(KEY, "relay.example:8080", bytes(range(64))),
    Welcome(["stun:relay.example:8080"]),
    IceServers([IceServer("stun:s.example"), IceServer("turn:t.example", "2:a", "c")]),
    Publish(b"record"),
    Subscribe(KEY),
    Records([b"one", b"two"]),
    Gone(KEY),
    Forward(KEY),
    Forwarded(KEY),
    Undelivered(KEY, "absent"),
    Ping(1),
    Pong(2**53 - 1),
    Refused("RateLimited", "too much"),
    RelayList([b"record", b"of another"]),
    SignalMessage(1, "offer", "v=0\r\n", "0", 0),
    PathPing(3),
    PathAck([0, 7, 2**32 - 1]),
    PathPong(4),
    OpenSession(SESSION, 1, KEY, 0, 6, 2048, OTHER, KEY, False),
    SessionOpened(SESSION, 1),
    Step(SESSION, 1, 7, 64),
    Result(SESSION, 7),
    StageError(SESSION, 1, "BudgetExceeded", "no room"),
    KeyRequest(KEY),
    KeyReply(KEY, bytes(range(32))),
    CloseSession(SESSION),
    StageReport(SESSION, 1, "webrtc", 4.5),
    PartsQuery(KEY),
    PartsHeld(KEY),
    PartRequest(5, KEY, 77, 65_536, 65_536),
    PartSlice(5),
    PartRefused(5, "missing"),
]
NUMBERS = {to_frame(message).type for message in EXAMPLES}
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=40)
    | st.binary(max_size=80),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)


def test_the_examples_are_all_the_messages_there_are() -> None:
    ours = {kind for kind in Message.__subclasses__() if kind.__module__ == Message.__module__}
    assert {type(message) for message in EXAMPLES} == ours


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_round_trips(message: Message) -> None:
    frame = to_frame(message, b"tensor", stream=3, sequence=9)
    received = parse(encode(frame))
    assert received == frame
    assert decode(received) == message
    assert bytes(received.payload) == b"tensor"


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_with_more_fields_is_read_without_them(message: Message) -> None:
    frame = to_frame(message)
    longer = [*msgspec.msgpack.decode(frame.body), "from a later version"]
    assert decode(Frame(type=frame.type, body=msgspec.msgpack.encode(longer))) == message


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_with_a_field_less_is_refused(message: Message) -> None:
    frame = to_frame(message)
    shorter = msgspec.msgpack.decode(frame.body)[:-1]
    with pytest.raises(ProtocolError, match=f"malformed {type(message).__name__}"):
        decode(Frame(type=frame.type, body=msgspec.msgpack.encode(shorter)))


@given(st.integers(0, 255), st.binary(max_size=100))
def test_junk_bodies_are_messages_or_refused(type: int, body: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        decode(Frame(type=type, body=body))


@given(st.sampled_from(sorted(NUMBERS)), st.lists(values, max_size=10))
def test_well_formed_nonsense_is_a_message_or_refused(type: int, fields: list[object]) -> None:
    with contextlib.suppress(ProtocolError):
        decode(Frame(type=type, body=msgspec.msgpack.encode(fields)))


@given(st.sampled_from(EXAMPLES), st.integers(0, 10**6), st.integers(0, 255))
def test_mutated_bodies_are_messages_or_refused(
    message: Message, position: int, value: int
) -> None:
    frame = to_frame(message)
    body = bytearray(frame.body)
    body[position % len(body)] = value
    with contextlib.suppress(ProtocolError):
        decode(Frame(type=frame.type, body=bytes(body)))


@pytest.mark.parametrize("opener", [b"\x91", b"\x81\xa1x", b"\x81"])
def test_deep_nesting_is_refused(opener: bytes) -> None:
    for number in sorted(NUMBERS):
        body = opener * (limits.BODY // len(opener))
        with pytest.raises(ProtocolError):
            decode(Frame(type=number, body=body))


@pytest.mark.parametrize("number", sorted(set(range(256)) - NUMBERS))
def test_an_unknown_type_is_named(number: int) -> None:
    with pytest.raises(ProtocolError, match=f"type {number} is not known"):
        decode(Frame(type=number))


def test_a_struct_without_a_number_is_our_own_fault() -> None:
    class Stranger(Message, frozen=True):
        pass

    with pytest.raises(LocalError, match="Stranger has no frame type"):
        to_frame(Stranger())


def test_the_largest_batch_of_records_fits_in_a_body() -> None:
    batch = Records([bytes(limits.RECORD)] * limits.RECORDS_PER_MESSAGE)
    assert decode(parse(encode(to_frame(batch)))) == batch


@pytest.mark.parametrize(
    "fields",
    [
        [[bytes(limits.RECORD + 1)]],
        [[b""] * (limits.RECORDS_PER_MESSAGE + 1)],
    ],
)
def test_larger_batches_are_refused(fields: list[object]) -> None:
    with pytest.raises(ProtocolError):
        decode(Frame(type=6, body=msgspec.msgpack.encode(fields)))


def test_what_is_signed_at_a_relay_names_its_purpose_and_the_relay() -> None:
    assert hello_bytes(KEY, "a") == b"kwaainet/hello/1\0" + KEY + b"a"
