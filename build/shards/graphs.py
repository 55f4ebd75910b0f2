"""ONNX graphs over weights that are handed in as external data.

All floats at a graph's borders are float32. S new positions, P past ones, H hidden size:

    embed   input_ids i64[1,S] -> hidden f32[1,S,H]
    span    hidden_in f32[1,S,H], seqlens_k i32[1] (positions - 1), total_sequence_length i32[],
            past_{k}_key, past_{k}_value f32[1,kv,P,hd]
            -> hidden_out f32[1,S,H], present_{k}_key, present_{k}_value f32[1,kv,P',hd]
    head    hidden_in f32[1,S,H] (the last position counts), temperature f32[1], k i64[1]
            -> top_values f32[1,k] (logits / temperature, falling), top_indices i64[1,k],
            logsumexp f32[1] (of logits / temperature over the whole vocabulary)
    whole   input_ids and the inputs of a span over all blocks -> logits f32[1,S,V] and presents

`past` may be longer than what is valid: room behind `total_sequence_length` is ignored, present
keeps the longer length, and a rewind is a smaller `total_sequence_length` with the same past.
The embedding table is float16: run `embed` on a CPU or WASM provider, for GPUs without shader-f16
refuse it, and only when it runs.

A block ends with its residual Add, so that one tensor crosses a border. The head reduces inside
the graph, so that logits never leave it. Sums run in fp32 (`accuracy_level=1`): with int8 sums,
the default elsewhere, peers on different engines would not agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
from onnx import TensorProto, helper

from build.shards.layout import Slot
from build.shards.quantise import BLOCK
from build.shards.source import Shape

_TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "uint8": TensorProto.UINT8,
}
_OPSETS = (helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1))
_IR_VERSION = 8
"""The oldest that goes with opset 17: the widest choice of runtimes."""


class GraphMaker:
    """Makes the graphs of one model in one variant.

    `expanded` graphs multiply by fp32 matrices, the others by int4 ones; `layer` and `head` are
    the layouts of the weight files in that variant, `rope` and `embed` those of either.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        expanded: bool,
        rope: Sequence[Slot],
        embed: Sequence[Slot],
        layer: Sequence[Slot],
        head: Sequence[Slot],
    ) -> None:
        self._shape = shape
        self._expanded = expanded
        self._rope, self._embed, self._layer, self._head = rope, embed, layer, head

    def embed(self) -> bytes:
        """Table look-up; the table is float16 on disk."""
        return _model(
            "embed",
            self._embed_nodes("hidden"),
            [_value("input_ids", TensorProto.INT64, [1, "S"])],
            [self._hidden("hidden")],
            _tensors(self._embed, "embed.bin"),
        )

    def span(self, blocks: int) -> bytes:
        """`blocks` layers in one session; layer k reads the file `layer{k}.bin`."""
        nodes, tensors = self._span_nodes(blocks, "hidden_in", "hidden_out")
        inputs = [self._hidden("hidden_in"), *self._lengths(), *self._caches("past", blocks, "P")]
        outputs = [self._hidden("hidden_out"), *self._caches("present", blocks, "T")]
        return _model(f"span{blocks}", nodes, inputs, outputs, tensors)

    def head(self) -> bytes:
        """Final norm, logits of the last position, and what sampling needs of them."""
        last = helper.make_tensor("last", TensorProto.INT64, [], [-1])
        axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
        flat = helper.make_tensor("flat", TensorProto.INT64, [1], [-1])
        nodes = [
            _node("Gather", ["hidden_in", "last"], ["final"], axis=1),
            self._norm("final", "norm", "normed"),
            *self._matmul("normed", "lm_head", "logits", self._shape.vocab_size),
            _node("Div", ["logits", "temperature"], ["scaled"]),
            # ONNX TopK puts the lower index first among equals.
            _node("TopK", ["scaled", "k"], ["top_values", "top_indices"], axis=1),
            # Written out: ReduceLogSumExp overflows where the engine does not shift by the maximum.
            _node("ReduceMax", ["scaled"], ["most"], axes=[1], keepdims=1),
            _node("Sub", ["scaled", "most"], ["shifted"]),
            _node("Exp", ["shifted"], ["powers"]),
            _node("ReduceSum", ["powers", "axis"], ["total"], keepdims=1),
            _node("Log", ["total"], ["log_total"]),
            _node("Add", ["log_total", "most"], ["lse"]),
            _node("Reshape", ["lse", "flat"], ["logsumexp"]),
        ]
        inputs = [
            self._hidden("hidden_in"),
            _value("temperature", TensorProto.FLOAT, [1]),
            _value("k", TensorProto.INT64, [1]),
        ]
        outputs = [
            _value("top_values", TensorProto.FLOAT, [1, "K"]),
            _value("top_indices", TensorProto.INT64, [1, "K"]),
            _value("logsumexp", TensorProto.FLOAT, [1]),
        ]
        tensors = [last, axis, flat, *_tensors(self._head, "head.bin")]
        return _model("head", nodes, inputs, outputs, tensors)

    def whole(self) -> bytes:
        """The unsplit model, logits at every position: the reference for all splits."""
        blocks = self._shape.blocks
        span, tensors = self._span_nodes(blocks, "embedded", "final")
        nodes = [
            *self._embed_nodes("embedded"),
            *span,
            self._norm("final", "norm", "normed"),
            *self._matmul("normed", "lm_head", "logits", self._shape.vocab_size),
        ]
        ids = _value("input_ids", TensorProto.INT64, [1, "S"])
        logits = _value("logits", TensorProto.FLOAT, [1, "S", self._shape.vocab_size])
        return _model(
            "whole",
            nodes,
            [ids, *self._lengths(), *self._caches("past", blocks, "P")],
            [logits, *self._caches("present", blocks, "T")],
            [
                *_tensors(self._embed, "embed.bin"),
                *tensors,
                *_tensors(self._head, "head.bin"),
            ],
        )

    def _span_nodes(self, blocks: int, first: str, last: str) -> tuple[list[Any], list[Any]]:
        names = [first, *(f"hidden_{k}" for k in range(1, blocks)), last]
        nodes: list[Any] = []
        tensors = _tensors(self._rope, "rope.bin")
        for k in range(blocks):
            nodes += self._block_nodes(k, names[k], names[k + 1])
            tensors += _tensors(self._layer, f"layer{k}.bin", f"{k}.")
        return nodes, tensors

    def _block_nodes(self, k: int, before: str, after: str) -> list[Any]:
        shape = self._shape
        at = f"{k}."
        attention = helper.make_node(
            "GroupQueryAttention",
            # Query, key and value come packed in the first input.
            [
                f"{at}qkv_out", "", "", f"past_{k}_key", f"past_{k}_value", "seqlens_k",
                "total_sequence_length", "cos", "sin",
            ],
            [f"{at}attended", f"present_{k}_key", f"present_{k}_value"],
            name=f"{at}attention",
            domain="com.microsoft",
            num_heads=shape.heads,
            kv_num_heads=shape.kv_heads,
            do_rotary=1,
        )  # fmt: skip
        skip = helper.make_node(
            "SkipSimplifiedLayerNormalization",
            [before, f"{at}o_out", f"{at}mlp_norm"],
            [f"{at}mlp_in", "", "", f"{at}middle"],
            name=f"{at}mlp_norm_op",
            domain="com.microsoft",
            epsilon=shape.rms_eps,
        )
        packed = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
        return [
            self._norm(before, f"{at}attention_norm", f"{at}attention_in"),
            *self._matmul(f"{at}attention_in", f"{at}qkv", f"{at}qkv_out", packed),
            attention,
            *self._matmul(f"{at}attended", f"{at}o", f"{at}o_out", shape.hidden_size),
            skip,
            *self._matmul(f"{at}mlp_in", f"{at}gate", f"{at}gate_out", shape.intermediate_size),
            *self._matmul(f"{at}mlp_in", f"{at}up", f"{at}up_out", shape.intermediate_size),
            _node("Sigmoid", [f"{at}gate_out"], [f"{at}gate_sigmoid"]),
            _node("Mul", [f"{at}gate_out", f"{at}gate_sigmoid"], [f"{at}gate_silu"]),
            _node("Mul", [f"{at}gate_silu", f"{at}up_out"], [f"{at}mlp"]),
            *self._matmul(f"{at}mlp", f"{at}down", f"{at}down_out", shape.hidden_size),
            _node("Add", [f"{at}middle", f"{at}down_out"], [after]),
        ]

    def _matmul(self, x: str, matrix: str, out: str, rows: int) -> list[Any]:
        if self._expanded:
            return [_node("MatMul", [x, matrix], [out])]
        inner = {
            "lm_head": self._shape.hidden_size,
            "o": self._shape.heads * self._shape.head_dim,
            "down": self._shape.intermediate_size,
        }.get(matrix.rpartition(".")[2], self._shape.hidden_size)
        return [
            # Of constants, so that ONNX Runtime does it once, at load.
            _node("Cast", [f"{matrix}.scales"], [f"{matrix}.scales32"], to=TensorProto.FLOAT),
            helper.make_node(
                "MatMulNBits",
                [x, f"{matrix}.packed", f"{matrix}.scales32"],
                [out],
                name=f"{out}_op",
                domain="com.microsoft",
                K=inner,
                N=rows,
                bits=4,
                block_size=BLOCK,
                accuracy_level=1,
            ),
        ]

    def _norm(self, x: str, weight: str, out: str) -> Any:
        return _node(
            "SimplifiedLayerNormalization",
            [x, weight],
            [out],
            axis=-1,
            epsilon=self._shape.rms_eps,
            stash_type=1,
        )

    def _embed_nodes(self, out: str) -> list[Any]:
        return [
            _node("Gather", ["table", "input_ids"], ["rows"], axis=0),
            _node("Cast", ["rows"], [out], to=TensorProto.FLOAT),
        ]

    def _hidden(self, name: str) -> Any:
        return _value(name, TensorProto.FLOAT, [1, "S", self._shape.hidden_size])

    def _lengths(self) -> list[Any]:
        return [
            _value("seqlens_k", TensorProto.INT32, [1]),
            _value("total_sequence_length", TensorProto.INT32, []),
        ]

    def _caches(self, when: str, blocks: int, length: str) -> list[Any]:
        dims: list[int | str] = [1, self._shape.kv_heads, length, self._shape.head_dim]
        return [
            _value(f"{when}_{k}_{part}", TensorProto.FLOAT, dims)
            for k in range(blocks)
            for part in ("key", "value")
        ]


def _node(kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Any:
    return helper.make_node(kind, inputs, outputs, name=f"{outputs[0]}_op", **attributes)


def _value(name: str, kind: int, dims: Sequence[int | str]) -> Any:
    return helper.make_tensor_value_info(name, kind, dims)


def _tensors(slots: Sequence[Slot], file: str, prefix: str = "") -> list[Any]:
    """Initializers whose bytes lie in `file`, to be handed to the session at load."""
    tensors = []
    for slot in slots:
        tensor = TensorProto(
            name=prefix + slot.name,
            data_type=_TYPES[slot.dtype],
            dims=slot.dims,
            data_location=TensorProto.EXTERNAL,
        )
        for key, value in (("location", file), ("offset", slot.offset), ("length", slot.length)):
            tensor.external_data.add(key=key, value=str(value))
        tensors.append(tensor)
    return tensors


def _model(
    name: str, nodes: list[Any], inputs: list[Any], outputs: list[Any], tensors: list[Any]
) -> bytes:
    graph = helper.make_graph(nodes, name, inputs, outputs, tensors)
    model = onnx.helper.make_model(graph, opset_imports=_OPSETS, ir_version=_IR_VERSION)
    model.producer_name = "kwaainet"
    return bytes(model.SerializeToString(deterministic=True))
