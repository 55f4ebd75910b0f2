"""Parts are numbered alike by everybody, roots before pieces, and bitmaps say which are here."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyodide_node.delivery.parts import Parts, is_set
from pyodide_node.errors import IntegrityError
from pyodide_node.hosts.simulated import simulated_model
from pyodide_node.model.manifest import PIECE
from pyodide_node.model.pieces import describe

CONTENT = bytes(range(256)) * 10_000
BLOB, ROOT = describe(CONTENT)
MANIFEST = msgspec.structs.replace(simulated_model(blocks=1).manifest, layers=[BLOB])
assert ROOT is not None


def parts() -> Parts:
    return Parts(MANIFEST)


def test_every_number_is_one_part_once_its_root_is_known() -> None:
    numbered = parts()
    unknown = [number for number in range(numbered.count) if numbered.part(number) is None]
    assert len(unknown) == 3
    assert numbered.pieces(BLOB) is None
    numbered.learn(BLOB, ROOT or b"")
    found = [numbered.part(number) for number in range(numbered.count)]
    assert [part and part.number for part in found] == list(range(numbered.count))
    root = numbered.root(BLOB)
    assert root is not None
    assert root.sha256 == BLOB.dag
    pieces = numbered.pieces(BLOB) or []
    assert [part.number for part in pieces] == [root.number + 1 + index for index in range(3)]
    assert [part.offset for part in pieces] == [0, PIECE, 2 * PIECE]
    assert sum(part.size for part in pieces) == len(CONTENT)
    for number in (-1, numbered.count, 2**24):
        assert numbered.part(number) is None


def test_a_root_of_another_file_is_refused() -> None:
    _, other = describe(CONTENT + b"!")
    with pytest.raises(IntegrityError):
        parts().learn(BLOB, other or b"")


@given(st.sets(st.integers(0, parts().count - 1)))
def test_a_bitmap_has_the_bits_of_its_numbers(numbers: set[int]) -> None:
    numbered = parts()
    bitmap = numbered.numbers(numbers)
    assert {number for number in range(numbered.count + 9) if is_set(bitmap, number)} == numbers


def test_the_bitmap_of_what_is_here_has_known_parts_only() -> None:
    numbered = parts()
    before = numbered.bitmap(lambda sha256: True)
    numbered.learn(BLOB, ROOT or b"")
    after = numbered.bitmap(lambda sha256: True)
    assert sum(byte.bit_count() for byte in after) == numbered.count
    assert sum(byte.bit_count() for byte in before) == numbered.count - 3
    assert numbered.bitmap(lambda sha256: False) == bytes(len(after))
