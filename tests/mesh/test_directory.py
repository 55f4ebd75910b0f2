"""Who serves what: the newest word of each peer, until it expires."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyodide_node.errors import RecordError
from pyodide_node.mesh.announcement import KIND, Announcement
from pyodide_node.mesh.directory import Directory
from pyodide_node.wire.records import Record

MODEL, OTHER = b"m" * 32, b"o" * 32


def key(name: int) -> bytes:
    return bytes([name]) * 32


def record(name: int, number: int = 1, expires: int = 1000, model: bytes = MODEL) -> Record:
    said = Announcement(model, 0, 4, 10.0, "simulated", "simulated", number)
    return Record(KIND, key(name), number, expires - 300, expires, msgspec.msgpack.encode(said))


def admit(directory: Directory, one: Record, now: float = 0.0) -> bool:
    return directory.admit(one, b"signed " + bytes([one.number]), now)


@given(
    events=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 20), st.integers(1, 500)), max_size=40
    )
)
def test_of_each_peer_the_highest_number_stands(events: list[tuple[int, int, int]]) -> None:
    directory, newest = Directory(), dict[int, Record]()
    for name, number, expires in events:
        one = record(name, number, expires)
        is_newer = number > newest[name].number if name in newest else True
        assert admit(directory, one) == is_newer
        if is_newer:
            newest[name] = one
    for now in (0, 250, 500):
        entries = directory.entries(MODEL, now)
        valid = [newest[name] for name in sorted(newest) if newest[name].expires > now]
        assert [entry.record for entry in entries] == valid
    assert {entry.public_key for entry in directory} == {key(name) for name in newest}


def test_only_those_who_serve_the_model_are_told() -> None:
    directory = Directory()
    admit(directory, record(1))
    admit(directory, record(2, model=OTHER))
    assert [entry.public_key for entry in directory.entries(MODEL, 0)] == [key(1)]


def test_a_peer_that_changes_its_model_leaves_the_first() -> None:
    directory = Directory()
    admit(directory, record(1, number=1))
    admit(directory, record(1, number=2, model=OTHER))
    assert directory.entries(MODEL, 0) == []
    assert len(directory.entries(OTHER, 0)) == 1


def test_the_bytes_as_signed_are_kept_to_pass_on() -> None:
    directory = Directory()
    admit(directory, record(1, number=7))
    entry = directory.get(key(1))
    assert entry is not None
    assert entry.signed == b"signed \x07"
    assert entry.announcement.free_positions == 7


def test_a_peer_that_left_may_come_back_with_the_same_record() -> None:
    directory = Directory()
    admit(directory, record(1))
    assert directory.remove(key(1)) is not None
    assert directory.get(key(1)) is None
    assert directory.remove(key(1)) is None
    assert admit(directory, record(1))


def test_what_has_expired_is_forgotten_and_named() -> None:
    directory = Directory()
    admit(directory, record(1, expires=100))
    admit(directory, record(2, expires=200))
    assert directory.expire(99.9) == []
    assert directory.expire(100) == [key(1)]
    assert len(directory) == 1


def test_a_full_directory_refuses_newcomers_but_hears_those_it_knows() -> None:
    directory = Directory(limit=2)
    admit(directory, record(1))
    admit(directory, record(2))
    with pytest.raises(RecordError, match="full; try another relay"):
        admit(directory, record(3))
    assert admit(directory, record(1, number=2))
    assert len(directory) == 2


def test_the_expired_make_room() -> None:
    directory = Directory(limit=2)
    admit(directory, record(1, expires=100))
    admit(directory, record(2, expires=500))
    assert admit(directory, record(3), now=100)
    assert {entry.public_key for entry in directory} == {key(2), key(3)}


def test_a_record_that_is_no_announcement_is_refused() -> None:
    with pytest.raises(RecordError):
        Directory().admit(Record("other", key(1), 1, 0, 100, b""), b"", 0)
