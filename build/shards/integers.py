"""Multiplication in 8-bit integers: the fastest form of few bits that ONNX Runtime's WASM has.

A row of activations is rounded to 255 steps of its own, so that a position comes out the same
whatever others it is computed with; a matrix has one unit a row. Activations are unsigned around
128: the kernel for two signed sides is ten times slower.
"""

from __future__ import annotations

from typing import Any

from onnx import TensorProto, helper

from build.shards.protos import node, number

__all__ = ["constants", "matmul"]


def constants() -> list[Any]:
    """What `matmul` needs in its graph, once."""
    return [
        number("int8.most", 127.0),
        number("int8.middle", 128.0),
        number("int8.least", 1e-30),
        helper.make_tensor("int8.zero", TensorProto.UINT8, [], [128]),
    ]


def matmul(x: str, matrix: str, out: str) -> list[Any]:
    """f32[.., K] times i8[K, N], whose rows' units are f32[N], to f32[.., N].

    What is done to `x` is the same for every matrix; ONNX Runtime does equal nodes once.
    """
    at = f"{out}.int8"
    return [
        node("Abs", [x], [f"{at}_size"]),
        node("ReduceMax", [f"{at}_size"], [f"{at}_peak"], axes=[-1], keepdims=1),
        node("Div", [f"{at}_peak", "int8.most"], [f"{at}_step"]),
        node("Max", [f"{at}_step", "int8.least"], [f"{at}_unit"]),
        node("Div", [x, f"{at}_unit"], [f"{at}_scaled"]),
        node("Round", [f"{at}_scaled"], [f"{at}_rounded"]),
        node("Add", [f"{at}_rounded", "int8.middle"], [f"{at}_level"]),
        node("Cast", [f"{at}_level"], [f"{at}_bytes"], to=TensorProto.UINT8),
        node("MatMulInteger", [f"{at}_bytes", matrix, "int8.zero"], [f"{at}_sum"]),
        node("Cast", [f"{at}_sum"], [f"{at}_float"], to=TensorProto.FLOAT),
        node("Mul", [f"{at}_float", f"{at}_unit"], [f"{at}_turned"]),
        node("Mul", [f"{at}_turned", f"{matrix}.units"], [out]),
    ]
