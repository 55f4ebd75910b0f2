"""Activations from outside are as many as they should be, and all of them are numbers."""

from __future__ import annotations

import math
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyodide_node.errors import ProtocolError
from pyodide_node.wire.tensors import check_activations, last_row

floats = st.lists(st.floats(width=32), min_size=8, max_size=8)


@given(floats)
def test_every_number_is_finite_or_the_tensor_is_refused(values: list[float]) -> None:
    data = array("f", values).tobytes()
    if all(map(math.isfinite, values)):
        check_activations(data, 2, 4)
    else:
        with pytest.raises(ProtocolError, match="NaN or infinity"):
            check_activations(memoryview(data), 2, 4)


def test_the_largest_finite_values_do_not_add_up_to_infinity() -> None:
    largest = 3.4028234663852886e38
    check_activations(array("f", [largest] * 65_536).tobytes(), 8, 8192)


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_tensor_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ProtocolError, match=f"activations of {size} bytes where 2 x 4"):
        check_activations(bytes(size), 2, 4)


def test_the_last_row_is_the_last_position() -> None:
    rows = array("f", range(12)).tobytes()
    assert bytes(last_row(rows, 4)) == array("f", [8, 9, 10, 11]).tobytes()
    assert bytes(last_row(memoryview(rows), 12)) == rows
