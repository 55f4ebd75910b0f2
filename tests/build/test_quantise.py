"""Rounding to int4: how far off, in which bytes, and what ONNX Runtime makes of them."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper, numpy_helper

from build.shards.quantise import Quantised, dequantise, quantise

matrices = arrays(
    np.float32, st.tuples(st.integers(1, 4), st.sampled_from([32, 64, 96])),
    elements=st.floats(-100, 100, width=32),
)  # fmt: skip


@given(matrices)
def test_no_worse_than_rounding_to_the_widest_scale(matrix: np.ndarray) -> None:
    blocks = matrix.reshape(-1, 32).astype(np.float64)
    off = (dequantise(quantise(matrix)).reshape(-1, 32) - blocks) ** 2
    step = np.abs(blocks).max(axis=1) / 8
    # Half a step for each weight, one step where the range -8..7 ends short of +8.
    assert (off.sum(axis=1) <= 32 * step**2 + 1e-9).all()


@given(matrices)
def test_negated_weights_are_as_good(matrix: np.ndarray) -> None:
    there, back = dequantise(quantise(matrix)), dequantise(quantise(-matrix))
    assert np.array_equal(there, -back)


def test_what_int4_can_hold_is_held_exactly() -> None:
    draw = np.random.default_rng(1)
    steps = draw.integers(-8, 8, (6, 64)).astype(np.float32)
    steps[:, ::32] = -8
    exact = steps * np.float32(0.125)
    assert np.array_equal(dequantise(quantise(exact)), exact)


def test_low_nibble_comes_first() -> None:
    row = np.zeros((1, 32), np.float32)
    row[0, :3] = [-8, 7, 1]
    made = quantise(row)
    assert made.scales.tolist() == [[1.0]]
    assert made.packed[0, 0, :2].tolist() == [0x0 | 0xF << 4, 0x9 | 0x8 << 4]


def test_zeros_stay_zeros() -> None:
    assert not dequantise(quantise(np.zeros((2, 64), np.float32))).any()


def test_the_smallest_numbers_do_no_harm() -> None:
    tiny = np.full((1, 32), np.float32(1e-45))
    assert np.abs(dequantise(quantise(tiny))).max() <= tiny.max()


def test_refuses_part_of_a_block() -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        quantise(np.zeros((2, 40), np.float32))


def test_onnxruntime_reads_the_same_weights() -> None:
    """The identity times MatMulNBits is the matrix that `dequantise` says it is."""
    rows, columns = 24, 64
    weights = np.random.default_rng(2).standard_normal((rows, columns)).astype(np.float32)
    made = quantise(weights)
    node = helper.make_node(
        "MatMulNBits", ["x", "packed", "scales"], ["y"], domain="com.microsoft",
        K=columns, N=rows, bits=4, block_size=32, accuracy_level=1,
    )  # fmt: skip
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [columns, columns])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [columns, rows])],
        [
            numpy_helper.from_array(made.packed, "packed"),
            numpy_helper.from_array(made.scales.reshape(-1).astype(np.float32), "scales"),
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    run = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    [y] = run.run(None, {"x": np.eye(columns, dtype=np.float32)})
    assert np.allclose(y.T, dequantise(made), atol=1e-6)


def test_sizes_are_those_of_the_matrix() -> None:
    made: Quantised = quantise(np.ones((5, 96), np.float32))
    assert (made.rows, made.columns) == (5, 96)
    assert made.packed.shape == (5, 3, 16)
    assert made.scales.shape == (5, 3)
