"""A file's pieces are named by the root of an IPFS file; golden values are kubo's and js-ipfs's."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyodide_node.errors import IntegrityError
from pyodide_node.model.manifest import PIECE
from pyodide_node.model.pieces import cid, describe, piece_sizes, pieces_of, root_bytes

CONTENT = bytes(range(256)) * (5 * PIECE // 512)
"""Two and a half pieces."""


def test_a_small_file_is_its_own_piece() -> None:
    blob, root = describe(b"hello\n")
    assert root is None
    assert blob.dag is None
    # `ipfs add --cid-version 1` of the same six bytes.
    assert cid(blob) == "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am"


def test_the_root_lists_every_piece() -> None:
    blob, root = describe(CONTENT)
    assert root is not None
    assert len(root) == root_bytes(len(CONTENT))
    digests = pieces_of(root, blob)
    starts = range(0, len(CONTENT), PIECE)
    assert digests == [hashlib.sha256(CONTENT[at : at + PIECE]).digest() for at in starts]
    assert cid(blob).startswith("bafybei")


@given(st.integers(1, 5 * PIECE))
def test_pieces_add_up(size: int) -> None:
    sizes = piece_sizes(size)
    assert sum(sizes) == size
    assert all(each == PIECE for each in sizes[:-1])
    assert 0 < sizes[-1] <= PIECE


@given(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=3))
def test_another_root_is_refused(at: int, put: bytes) -> None:
    blob, root = describe(CONTENT)
    assert root is not None
    at %= len(root)
    other = root[:at] + put + root[at + len(put) :]
    if other != root:
        with pytest.raises(IntegrityError):
            pieces_of(other, blob)


@pytest.mark.parametrize("cut", [0, 1, 40, 100])
def test_a_cut_root_is_refused(cut: int) -> None:
    blob, root = describe(CONTENT)
    assert root is not None
    with pytest.raises(IntegrityError):
        pieces_of(root[:cut], blob)
