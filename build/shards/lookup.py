"""Rows of the embedding, as an ONNX graph looks them up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx import TensorProto

from build.shards.layout import Slot
from build.shards.protos import ints, node, number, tensors
from build.shards.quantise import BLOCK

__all__ = ["look_up"]


def look_up(slots: Sequence[Slot], out: str) -> tuple[list[Any], list[Any]]:
    """Nodes and tensors that take `input_ids` i64[1,S] to f32[1,S,H], as `out`.

    `slots` are those of `embed.bin`.
    """
    table = [slot for slot in slots if slot.kind != "vector"]
    weights = tensors(table, "embed.bin", "embed.")
    if table[0].kind == "packed":
        nodes, dims = _dequantise(table[0], out)
        return nodes, [*weights, *dims]
    if table[0].dtype == "float32":
        return [node("Gather", ["embed.table", "input_ids"], [out], axis=0)], weights
    nodes = [
        node("Gather", ["embed.table", "input_ids"], ["looked_up"], axis=0),
        node("Cast", ["looked_up"], [out], to=TensorProto.FLOAT),
    ]
    return nodes, weights


def _dequantise(packed: Slot, out: str) -> tuple[list[Any], list[Any]]:
    """Only the rows looked up become floats. In plain operators, because the WASM build that
    has WebGPU lacks GatherBlockQuantized."""
    _, blocks, width = packed.dims
    bits = 8 * width // BLOCK
    nodes = [
        node("Gather", ["embed.table.packed", "input_ids"], ["looked_up"], axis=0),
        node("Cast", ["looked_up"], ["levels"], to=TensorProto.FLOAT),
    ]
    levels = "levels"
    if bits == 4:
        levels = "nibbles"
        nodes += [
            node("Mul", ["levels", "sixteenth"], ["shifted"]),
            node("Floor", ["shifted"], ["high"]),
            node("Mul", ["high", "sixteen"], ["high_part"]),
            node("Sub", ["levels", "high_part"], ["low"]),
            node("Unsqueeze", ["low", "last_axis"], ["low_column"]),
            node("Unsqueeze", ["high", "last_axis"], ["high_column"]),
            # The low half comes first.
            node("Concat", ["low_column", "high_column"], ["pairs"], axis=-1),
            node("Reshape", ["pairs", "block_dims"], ["nibbles"]),
        ]
    nodes += [
        node("Sub", [levels, "zero_level"], ["signed"]),
        node("Gather", ["embed.table.scales", "input_ids"], ["half_scales"], axis=0),
        node("Cast", ["half_scales"], ["scale_row"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["scale_row", "last_axis"], ["scale_column"]),
        node("Mul", ["signed", "scale_column"], ["scaled_blocks"]),
        node("Reshape", ["scaled_blocks", "row_dims"], [out]),
    ]
    dims = [
        ints("last_axis", -1), ints("row_dims", 0, 0, blocks * BLOCK),
        number("zero_level", 1 << bits - 1),
    ]  # fmt: skip
    if bits == 4:
        dims += [ints("block_dims", 0, 0, -1, BLOCK)]
        dims += [number("sixteen", 16), number("sixteenth", 1 / 16)]
    return nodes, dims
