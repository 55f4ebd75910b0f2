"""The nearest peers are found, and nobody crowds the others out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay_server.bridge import limits
from relay_server.bridge.peers import PeerTable, distance

OWN = bytes(20)
IDS = st.binary(min_size=20, max_size=20).filter(any)


def far(number: int) -> bytes:
    """An id in the farthest bucket of OWN."""
    return b"\x80" + number.to_bytes(19)


@given(st.lists(IDS, max_size=60, unique=True), IDS, st.integers(1, 8))
def test_the_nearest_are_those_of_least_distance(ids: list[bytes], key: bytes, count: int) -> None:
    table = PeerTable(OWN)
    known = [id for id in ids if table.heard(id, b"peer" + id, 0.0)]
    nearest = sorted(known, key=lambda id: distance(id, key))[:count]
    assert [node for node, _ in table.nearest(key, count)] == nearest


def test_who_asks_is_not_told_of_itself() -> None:
    table = PeerTable(OWN)
    table.heard(far(1), b"1", 0.0)
    table.heard(far(2), b"2", 0.0)
    assert table.nearest(far(1), 5, without=far(1)) == [(far(2), b"2")]


def test_we_are_no_peer_of_ours() -> None:
    table = PeerTable(OWN)
    assert not table.heard(OWN, b"peer", 0.0)
    assert len(table) == 0


def test_a_peer_has_one_id() -> None:
    table = PeerTable(OWN)
    table.heard(far(1), b"peer", 0.0)
    table.heard(far(2), b"peer", 0.0)
    assert table.nearest(OWN, 5) == [(far(2), b"peer")]
    table.heard(bytes(19) + b"\1", b"peer", 0.0)  # in another bucket
    table.remove(b"peer")
    assert len(table) == 0


def test_in_a_full_bucket_only_the_silent_make_room() -> None:
    table = PeerTable(OWN)
    for number in range(limits.BUCKET):
        assert table.heard(far(number), b"%d" % number, float(number))
    assert not table.heard(far(99), b"99", limits.STALE - 1)
    table.heard(far(0), b"0", limits.STALE)
    assert table.heard(far(99), b"99", limits.STALE + 1)
    assert b"1" not in table
    assert b"0" in table
    assert len(table) == limits.BUCKET


def test_a_peer_that_is_gone_is_forgotten() -> None:
    table = PeerTable(OWN)
    table.heard(far(1), b"1", 0.0)
    table.remove(b"1")
    table.remove(b"1")
    assert table.nearest(OWN, 5) == []
