"""Frames survive fragmenting, interleaving and two paths, and nothing else gets through."""

from __future__ import annotations

import contextlib
import random
import tracemalloc
from collections.abc import Iterator, Sequence
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyodide_node.errors import LocalError, ProtocolError
from pyodide_node.wire import limits
from pyodide_node.wire.frames import (
    HEADER,
    Frame,
    Reassembler,
    encode,
    fragments,
    parse,
    peek_type,
)

T = TypeVar("T")

frames = st.builds(
    Frame,
    type=st.integers(0, 255),
    stream=st.integers(0, 2**32 - 1),
    sequence=st.integers(0, 2**32 - 1),
    body=st.binary(max_size=300),
    payload=st.binary(max_size=3000),
)
limits_of_a_path = st.integers(HEADER.size + 1, limits.CHANNEL_MESSAGE)


def merged(parts: Sequence[Sequence[T]], chance: random.Random) -> Iterator[T]:
    """All items; those of one part keep their order."""
    left = [list(part) for part in parts if part]
    while left:
        part = chance.choice(left)
        yield part.pop(0)
        left = [part for part in left if part]


def feed(reader: Reassembler, *pieces: bytes) -> list[Frame]:
    return [frame for piece in pieces if (frame := reader.feed(piece)) is not None]


def message(sequence: int = 0, size: int = 10_000, type: int = 42) -> Frame:
    return Frame(type=type, sequence=sequence, body=b"body", payload=bytes(size - 4))


# --- what is honest arrives ---------------------------------------------------------------


@given(frames)
def test_a_whole_frame_round_trips(frame: Frame) -> None:
    data = encode(frame)
    assert feed(Reassembler(), data) == [frame]
    assert parse(data) == frame
    assert peek_type(data) == frame.type


@given(frames, limits_of_a_path)
def test_fragments_stay_under_their_limit_and_make_the_frame(frame: Frame, limit: int) -> None:
    pieces = list(fragments(frame, limit))
    assert max(map(len, pieces)) <= limit
    assert feed(Reassembler(), *pieces) == [frame]


@given(
    st.lists(frames, min_size=1, max_size=8, unique_by=lambda frame: frame.sequence),
    limits_of_a_path,
    limits_of_a_path,
    st.randoms(use_true_random=False),
)
def test_messages_interleaved_on_two_paths_arrive_once_each(
    sent: list[Frame], first: int, second: int, chance: random.Random
) -> None:
    base = min(frame.sequence for frame in sent)
    near = [
        Frame(
            type=frame.type,
            stream=frame.stream,
            sequence=(frame.sequence - base) % limits.REPLAY_WINDOW + index,
            body=frame.body,
            payload=frame.payload,
        )
        for index, frame in enumerate(sent)
    ]
    near = list({frame.sequence: frame for frame in near}.values())
    low = min(frame.sequence for frame in near)
    near = [frame for frame in near if frame.sequence - low < limits.REPLAY_WINDOW]
    paths = [
        list(merged([list(fragments(frame, limit)) for frame in near], chance))
        for limit in (first, second)
    ]
    arrived = feed(Reassembler(), *merged(paths, chance))
    assert sorted(arrived, key=lambda frame: frame.sequence) == sorted(
        near, key=lambda frame: frame.sequence
    )


def test_a_message_begun_on_a_path_that_died_arrives_whole_by_the_other() -> None:
    reader = Reassembler()
    first, second, *_ = fragments(message())
    assert feed(reader, first, second, encode(message())) == [message()]
    assert feed(reader, *fragments(message())) == []


def test_a_message_begun_anew_goes_on_where_it_stopped() -> None:
    reader = Reassembler()
    pieces = list(fragments(message()))
    assert feed(reader, *pieces[:2], *pieces) == [message()]


def test_an_empty_frame_is_a_header() -> None:
    frame = Frame(type=7)
    assert list(fragments(frame)) == [encode(frame)]
    assert len(encode(frame)) == HEADER.size
    assert feed(Reassembler(), encode(frame)) == [frame]


def test_a_frame_is_named_in_logs_without_its_content() -> None:
    frame = Frame(type=42, stream=3, sequence=7, body=b"secret")
    assert str(frame) == "frame 42 #7 stream 3 6 B"


# --- repeats ------------------------------------------------------------------------------


@given(st.permutations(range(40)))
def test_a_sequence_number_is_delivered_once_in_any_order(order: list[int]) -> None:
    reader = Reassembler()
    twice = [encode(Frame(type=1, sequence=n)) for n in order + order]
    assert [frame.sequence for frame in feed(reader, *twice)] == order


def test_what_is_older_than_the_window_counts_as_a_repeat() -> None:
    reader = Reassembler()
    oldest_kept = limits.REPLAY_WINDOW
    numbers = [2 * limits.REPLAY_WINDOW - 1, oldest_kept, oldest_kept - 1]
    data = [encode(Frame(type=1, sequence=n)) for n in numbers]
    assert [frame.sequence for frame in feed(reader, *data)] == numbers[:2]


def test_a_jump_over_all_numbers_costs_no_memory() -> None:
    reader = Reassembler()
    feed(reader, encode(Frame(type=1)))
    last = encode(Frame(type=1, sequence=2**32 - 1))
    tracemalloc.start()
    try:
        assert len(feed(reader, last)) == 1
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert feed(reader, last) == []


# --- what is not honest -------------------------------------------------------------------


@given(frames, st.data())
def test_any_truncated_frame_is_refused_or_waits(frame: Frame, data: st.DataObject) -> None:
    encoded = encode(frame)
    cut = encoded[: data.draw(st.integers(0, len(encoded) - 1))]
    with contextlib.suppress(ProtocolError):
        assert feed(Reassembler(), cut) == []
    with pytest.raises(ProtocolError):
        parse(cut)
    if len(cut) < HEADER.size:
        with pytest.raises(ProtocolError):
            peek_type(cut)


@given(frames, st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1))
def test_any_mutated_frame_is_a_frame_or_refused(
    frame: Frame, changes: list[tuple[int, int]]
) -> None:
    reader = Reassembler()
    for piece in fragments(frame, 200):
        mutated = bytearray(piece)
        for position, value in changes:
            mutated[position % len(mutated)] = value
        for function in (reader.feed, parse, peek_type):
            with contextlib.suppress(ProtocolError):
                function(mutated)


@given(st.lists(st.binary(max_size=200)))
def test_any_bytes_are_a_frame_or_refused(received: list[bytes]) -> None:
    reader = Reassembler()
    for data in received:
        with contextlib.suppress(ProtocolError):
            reader.feed(data)


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_named_and_refused(version: int) -> None:
    data = bytes([version]) + encode(message())[1:]
    for function in (Reassembler().feed, parse):
        with pytest.raises(ProtocolError, match=f"version {version} .* speaks 1") as caught:
            function(data)
        assert caught.value.data["version"] == version


def header(*, body: int = 0, sequence: int = 0, length: int = 0, offset: int = 0) -> bytes:
    return HEADER.pack(limits.VERSION, 1, body, 0, sequence, length, offset)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(header()[:-1], id="half a header"),
        pytest.param(header() + b"x", id="more than its length"),
        pytest.param(header(length=10), id="no content"),
        pytest.param(header(length=10, offset=10) + b"x", id="beyond its end"),
        pytest.param(header(length=10, offset=2**32 - 1) + b"x", id="far beyond its end"),
        pytest.param(header(length=limits.MESSAGE + 1) + b"x", id="over the message limit"),
        pytest.param(header(length=10, body=11) + bytes(10), id="body over length"),
        pytest.param(header(length=10, offset=5) + b"x", id="begins in the middle"),
        pytest.param(
            header(length=limits.BODY + 1, body=limits.BODY + 1) + b"x", id="over the body limit"
        ),
    ],
)
def test_a_header_that_lies_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        Reassembler().feed(data)


def test_a_fragment_that_leaves_a_gap_is_refused() -> None:
    reader = Reassembler()
    first, _, third = fragments(message())
    reader.feed(first)
    with pytest.raises(ProtocolError, match="does not follow"):
        reader.feed(third)


@pytest.mark.parametrize("other", [message(type=43), message(size=10_001)])
def test_a_fragment_of_another_message_with_that_number_is_refused(other: Frame) -> None:
    reader = Reassembler()
    reader.feed(next(fragments(message())))
    with pytest.raises(ProtocolError, match="does not follow"):
        reader.feed(next(fragments(other)))


def test_fragments_are_no_whole_frames() -> None:
    for piece in fragments(message()):
        with pytest.raises(ProtocolError, match="fragments"):
            parse(piece)


def test_a_frame_over_a_limit_is_our_own_fault() -> None:
    with pytest.raises(LocalError, match="send it in parts"):
        encode(Frame(type=1, payload=bytes(limits.MESSAGE + 1)))
    with pytest.raises(LocalError, match="send it in parts"):
        encode(Frame(type=1, body=bytes(limits.BODY + 1)))


# --- memory -------------------------------------------------------------------------------


def test_unfinished_messages_are_few() -> None:
    reader = Reassembler()
    for sequence in range(limits.PARTIAL_MESSAGES):
        reader.feed(header(sequence=sequence, length=10) + b"x")
    with pytest.raises(ProtocolError, match="too many unfinished"):
        reader.feed(header(sequence=limits.PARTIAL_MESSAGES, length=10) + b"x")


def test_claimed_lengths_do_not_allocate_more_than_the_bound() -> None:
    reader = Reassembler()
    refused = 0
    tracemalloc.start()
    try:
        for sequence in range(200):
            try:
                reader.feed(header(sequence=sequence, length=limits.MESSAGE) + b"x")
            except ProtocolError:
                refused += 1
        assert tracemalloc.get_traced_memory()[1] < limits.PARTIAL_BYTES + 100_000
    finally:
        tracemalloc.stop()
    assert refused == 200 - limits.PARTIAL_BYTES // limits.MESSAGE


def test_finished_messages_make_room() -> None:
    reader = Reassembler()
    for sequence in range(3 * limits.PARTIAL_BYTES // limits.MESSAGE):
        frame = message(sequence, limits.MESSAGE)
        assert len(feed(reader, *fragments(frame, 1 << 20))) == 1


def test_messages_whose_path_failed_half_way_are_forgotten_in_time() -> None:
    reader = Reassembler()
    for sequence in range(limits.PARTIAL_MESSAGES):
        reader.feed(header(sequence=sequence, length=10) + b"x")
    beyond = limits.REPLAY_WINDOW + limits.PARTIAL_MESSAGES
    feed(reader, encode(Frame(type=1, sequence=beyond)))
    assert len(feed(reader, *fragments(message(beyond + 1)))) == 1
