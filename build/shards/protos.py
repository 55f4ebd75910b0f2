"""ONNX's protocol buffers, made short."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx import TensorProto, helper

from build.shards.layout import Slot

__all__ = ["TYPES", "ints", "model", "node", "number", "scalar", "tensors", "value"]

TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
}
_OPSETS = (helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1))
_IR_VERSION = 8
"""The oldest that goes with opset 17: the widest choice of runtimes."""


def node(kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Any:
    return helper.make_node(kind, inputs, outputs, name=f"{outputs[0]}_op", **attributes)


def value(name: str, kind: int, dims: Sequence[int | str]) -> Any:
    return helper.make_tensor_value_info(name, kind, dims)


def ints(name: str, *values: int) -> Any:
    return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)


def number(name: str, value: float) -> Any:
    return helper.make_tensor(name, TensorProto.FLOAT, [], [value])


def scalar(name: str, number: int) -> Any:
    return helper.make_tensor(name, TensorProto.INT64, [], [number])


def tensors(slots: Sequence[Slot], file: str, prefix: str = "") -> list[Any]:
    """Initializers whose bytes lie in `file`, to be handed to the session at load."""
    made = []
    for slot in slots:
        tensor = TensorProto(
            name=prefix + slot.name,
            data_type=TYPES[slot.dtype],
            dims=slot.dims,
            data_location=TensorProto.EXTERNAL,
        )
        for key, value in (("location", file), ("offset", slot.offset), ("length", slot.length)):
            tensor.external_data.add(key=key, value=str(value))
        made.append(tensor)
    return made


def model(
    name: str, nodes: list[Any], inputs: list[Any], outputs: list[Any], initializers: list[Any]
) -> bytes:
    graph = helper.make_graph(nodes, name, inputs, outputs, initializers)
    proto = helper.make_model(graph, opset_imports=_OPSETS, ir_version=_IR_VERSION)
    proto.producer_name = "kwaainet"
    return bytes(proto.SerializeToString(deterministic=True))
