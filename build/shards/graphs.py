"""ONNX graphs over weights that are handed in as external data.

Hidden states and what the head says are float32 at a graph's borders; keys and values have the
graph's own precision T, half in `gpu-fp16` and float32 elsewhere. S new positions, P past ones,
H hidden size:

    embed   input_ids i64[1,S] -> hidden f32[1,S,H]
    span    hidden_in f32[1,S,H], seqlens_k i32[1] (positions - 1), total_sequence_length i32[],
            past_{k}_key, past_{k}_value T[1,kv,P,hd]
            -> hidden_out f32[1,S,H], present_{k}_key, present_{k}_value T[1,kv,P',hd]
    head    hidden_in f32[1,S,H] (the last position counts), temperature f32[1], k i64[1]
            -> top_values f32[1,k] (logits / temperature, falling), top_indices i64[1,k],
            logsumexp f32[1] (of logits / temperature over the whole vocabulary)
    whole   input_ids and the inputs of a span over all blocks -> logits f32[1,S,V] and presents

`past` may be longer than what is valid: room behind `total_sequence_length` is ignored, present
keeps the longer length, and a rewind is a smaller `total_sequence_length` with the same past.
Run `embed` on a CPU or WASM provider: its table or the scales are float16, which GPUs without
shader-f16 refuse.

A block ends with its residual Add, so that one tensor crosses a border. The head reduces inside
the graph, so that logits never leave it. Sums run in fp32 (`accuracy_level=1`): with int8 sums,
the default elsewhere, peers on different engines would not agree.

Every variant reads the same files. Where a file's floats are not of the graph's precision they
pass a Cast, which ONNX Runtime computes once, at load, because its input never changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from onnx import TensorProto

from build.shards import integers
from build.shards.cut import cut, join
from build.shards.layout import Slot
from build.shards.lookup import look_up
from build.shards.protos import TYPES, ints, model, node, scalar, tensors, value
from build.shards.quantise import BLOCK
from build.shards.source import Shape

__all__ = ["GraphMaker", "Precision"]

Precision = Literal["single", "half"]

_DTYPES = {"single": "float32", "half": "float16"}


class GraphMaker:
    """Makes the graphs of one model in one variant, from the layouts of the files that it reads."""

    def __init__(
        self,
        shape: Shape,
        precision: Precision,
        *,
        rope: Sequence[Slot],
        embed: Sequence[Slot],
        layer: Sequence[Slot],
        head: Sequence[Slot],
    ) -> None:
        self._shape = shape
        self._dtype = _DTYPES[precision]
        self._rope, self._embed, self._layer = rope, embed, layer
        self._head, self._tables = cut(head)
        self._slots = {slot.name: slot for slot in (*rope, *layer, *self._head)}

    def embed(self) -> bytes:
        """Table look-up."""
        nodes, weights = look_up(self._embed, "hidden")
        return model(
            "embed",
            nodes,
            [value("input_ids", TensorProto.INT64, [1, "S"])],
            [self._hidden("hidden")],
            weights,
        )

    def span(self, blocks: int) -> bytes:
        """`blocks` layers in one session; layer k reads the file `layer{k}.bin`."""
        nodes, weights = self._span_nodes(blocks, "hidden_in", "hidden_out")
        inputs = [self._hidden("hidden_in"), *self._lengths(), *self._caches("past", blocks, "P")]
        outputs = [self._hidden("hidden_out"), *self._caches("present", blocks, "T")]
        return model(f"span{blocks}", nodes, inputs, outputs, weights)

    def head(self) -> bytes:
        """Final norm, logits of the last position, and what sampling needs of them."""
        nodes, weights = self._head_nodes("final", "logits")
        nodes = [
            node("Gather", ["hidden_in", "last"], ["final"], axis=1),
            *nodes,
            node("Div", ["logits", "temperature"], ["scaled"]),
            # ONNX TopK puts the lower index first among equals.
            node("TopK", ["scaled", "k"], ["top_values", "top_indices"], axis=1),
            # Written out: ReduceLogSumExp overflows where the engine does not shift by the maximum.
            node("ReduceMax", ["scaled"], ["most"], axes=[1], keepdims=1),
            node("Sub", ["scaled", "most"], ["shifted"]),
            node("Exp", ["shifted"], ["powers"]),
            node("ReduceSum", ["powers", "axis"], ["total"], keepdims=1),
            node("Log", ["total"], ["log_total"]),
            node("Add", ["log_total", "most"], ["lse"]),
            node("Reshape", ["lse", "flat"], ["logsumexp"]),
        ]
        inputs = [
            self._hidden("hidden_in"),
            value("temperature", TensorProto.FLOAT, [1]),
            value("k", TensorProto.INT64, [1]),
        ]
        outputs = [
            value("top_values", TensorProto.FLOAT, [1, "K"]),
            value("top_indices", TensorProto.INT64, [1, "K"]),
            value("logsumexp", TensorProto.FLOAT, [1]),
        ]
        weights += [
            scalar("last", -1), ints("axis", 1),
            ints("flat", -1),
        ]  # fmt: skip
        return model("head", nodes, inputs, outputs, weights)

    def whole(self) -> bytes:
        """The unsplit model, logits at every position: the reference for all splits."""
        blocks, vocab = self._shape.blocks, self._shape.vocab_size
        embed, table = look_up(self._embed, "embedded")
        span, layers = self._span_nodes(blocks, "embedded", "blocks_out")
        head, matrix = self._head_nodes("final", "flat_logits")
        # The head takes one row a position, as it does alone.
        nodes = [
            *embed,
            *span,
            node("Reshape", ["blocks_out", "rows_dims"], ["final"]),
            *head,
            node("Reshape", ["flat_logits", "logits_dims"], ["logits"]),
        ]
        dims = [
            ints("rows_dims", -1, self._shape.hidden_size), ints("logits_dims", 1, -1, vocab),
        ]  # fmt: skip
        ids = value("input_ids", TensorProto.INT64, [1, "S"])
        return model(
            "whole",
            nodes,
            [ids, *self._lengths(), *self._caches("past", blocks, "P")],
            [
                value("logits", TensorProto.FLOAT, [1, "S", vocab]),
                *self._caches("present", blocks, "T"),
            ],
            [*table, *layers, *matrix, *dims],
        )

    def _head_nodes(self, before: str, logits: str) -> tuple[list[Any], list[Any]]:
        """f32[S, H] to f32[S, V]. The norm is taken in float32 in every variant."""
        nodes = [
            *self._casts([slot for slot in self._head if slot.kind != "vector"], ""),
            self._norm(before, "norm", "normed"),
        ]
        if self._dtype == "float32":
            nodes += self._logits("normed", logits)
        else:
            nodes += [
                node("Cast", ["normed"], ["half_normed"], to=TensorProto.FLOAT16),
                *self._logits("half_normed", "half_logits"),
                node("Cast", ["half_logits"], [logits], to=TensorProto.FLOAT),
            ]
        return nodes, [*tensors(self._head, "head.bin"), *_constants(self._head)]

    def _logits(self, x: str, out: str) -> list[Any]:
        if len(self._tables) == 1:
            return self._matmul(x, "table", "", out)
        parts = [f"{out}_of_{table}" for table in self._tables]
        made = [
            made
            for table, part in zip(self._tables, parts, strict=True)
            for made in self._matmul(x, table, "", part)
        ]
        return [*made, *join(parts, out)]

    def _span_nodes(self, blocks: int, first: str, last: str) -> tuple[list[Any], list[Any]]:
        names = [first, *(f"hidden_{k}" for k in range(1, blocks)), last]
        nodes = self._casts(self._rope, "")
        half = self._dtype == "float16"
        if half:
            names[0], names[-1] = "half_in", "half_out"
            nodes.append(node("Cast", [first], ["half_in"], to=TensorProto.FLOAT16))
        weights = [*tensors(self._rope, "rope.bin"), *_constants(self._layer)]
        if self._shape.qk_norm:
            weights += self._qk_dims()
        for k in range(blocks):
            nodes += self._casts(self._layer, f"{k}.")
            nodes += self._block_nodes(k, names[k], names[k + 1])
            weights += tensors(self._layer, f"layer{k}.bin", f"{k}.")
        if half:
            nodes.append(node("Cast", ["half_out"], [last], to=TensorProto.FLOAT))
        return nodes, weights

    def _block_nodes(self, k: int, before: str, after: str) -> list[Any]:
        shape, at = self._shape, f"{k}."
        skip = node(
            "SkipSimplifiedLayerNormalization",
            [before, f"{at}o_out", self._use(f"{at}mlp_norm")],
            [f"{at}mlp_in", "", "", f"{at}middle"],
            domain="com.microsoft",
            epsilon=shape.rms_eps,
        )
        return [
            self._norm(before, self._use(f"{at}attention_norm"), f"{at}attention_in"),
            *self._attention_nodes(k, f"{at}attention_in", f"{at}attended"),
            *self._matmul(f"{at}attended", "o", at, f"{at}o_out"),
            skip,
            *self._matmul(f"{at}mlp_in", "gate", at, f"{at}gate_out"),
            *self._matmul(f"{at}mlp_in", "up", at, f"{at}up_out"),
            node("Sigmoid", [f"{at}gate_out"], [f"{at}gate_sigmoid"]),
            node("Mul", [f"{at}gate_out", f"{at}gate_sigmoid"], [f"{at}gate_silu"]),
            node("Mul", [f"{at}gate_silu", f"{at}up_out"], [f"{at}mlp"]),
            *self._matmul(f"{at}mlp", "down", at, f"{at}down_out"),
            node("Add", [f"{at}middle", f"{at}down_out"], [after]),
        ]

    def _attention_nodes(self, k: int, before: str, after: str) -> list[Any]:
        shape, at = self._shape, f"{k}."
        nodes = self._matmul(before, "qkv", at, f"{at}qkv_out")
        packed = f"{at}qkv_out"
        if shape.qkv_bias:
            packed = f"{at}qkv_biased"
            nodes.append(node("Add", [f"{at}qkv_out", self._use(f"{at}qkv_bias")], [packed]))
        given = [packed, "", ""]
        if shape.qk_norm:
            given = [f"{at}query", f"{at}key", f"{at}value"]
            split = [f"{at}query_raw", f"{at}key_raw", f"{at}value"]
            nodes.append(node("Split", [packed, "qkv_sizes"], split, axis=-1))
            nodes += self._head_norm(f"{at}query", f"{at}q_norm", "query_heads")
            nodes += self._head_norm(f"{at}key", f"{at}k_norm", "key_heads")
        caches = [f"past_{k}_key", f"past_{k}_value", "seqlens_k", "total_sequence_length"]
        attention = node(
            "GroupQueryAttention",
            [*given, *caches, self._use("cos"), self._use("sin")],
            [after, f"present_{k}_key", f"present_{k}_value"],
            domain="com.microsoft",
            num_heads=shape.heads,
            kv_num_heads=shape.kv_heads,
            do_rotary=1,
        )
        return [*nodes, attention]

    def _head_norm(self, name: str, weight: str, heads: str) -> list[Any]:
        """`{name}_raw` normalised head by head."""
        return [
            node("Reshape", [f"{name}_raw", heads], [f"{name}_heads"]),
            self._norm(f"{name}_heads", self._use(weight), f"{name}_normed"),
            node("Reshape", [f"{name}_normed", "one_row"], [name]),
        ]

    def _qk_dims(self) -> list[Any]:
        shape = self._shape
        queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        return [
            ints("qkv_sizes", queries, keys, keys),
            ints("query_heads", 0, 0, shape.heads, shape.head_dim),
            ints("key_heads", 0, 0, shape.kv_heads, shape.head_dim),
            ints("one_row", 0, 0, -1),
        ]

    def _matmul(self, x: str, matrix: str, prefix: str, out: str) -> list[Any]:
        """x [.., K] times the matrix's N rows."""
        slot = self._slots.get(f"{matrix}.packed") or self._slots[matrix]
        weights = f"{prefix}{matrix}"
        match slot.kind:
            case "columns":
                return [node("MatMul", [x, self._use(weights)], [out])]
            case "integers":
                return integers.matmul(x, weights, out)
            case "rows":  # x has one dimension less: the head's
                return [node("Gemm", [x, self._use(weights)], [out], transB=1)]
        rows, blocks, width = slot.dims
        made = node(
            "MatMulNBits",
            [x, f"{weights}.packed", self._use(f"{weights}.scales")],
            [out],
            domain="com.microsoft",
            K=blocks * BLOCK,
            N=rows,
            bits=8 * width // BLOCK,
            block_size=BLOCK,
            accuracy_level=1,
        )
        return [made]

    def _casts(self, slots: Sequence[Slot], prefix: str) -> list[Any]:
        """What brings floats of another precision to this one."""
        to = TYPES[self._dtype]
        return [
            node("Cast", [f"{prefix}{slot.name}"], [f"{prefix}{slot.name}.cast"], to=to)
            for slot in slots
            if self._foreign(slot)
        ]

    def _use(self, name: str) -> str:
        """The tensor of this name in the graph's precision."""
        slot = self._slots[name.partition(".")[2] if name[0].isdigit() else name]
        return f"{name}.cast" if self._foreign(slot) else name

    def _foreign(self, slot: Slot) -> bool:
        return slot.dtype not in ("uint8", "int8", self._dtype)

    def _norm(self, x: str, weight: str, out: str) -> Any:
        return node(
            "SimplifiedLayerNormalization",
            [x, weight],
            [out],
            axis=-1,
            epsilon=self._shape.rms_eps,
            stash_type=1,
        )

    def _hidden(self, name: str) -> Any:
        return value(name, TensorProto.FLOAT, [1, "S", self._shape.hidden_size])

    def _lengths(self) -> list[Any]:
        return [
            value("seqlens_k", TensorProto.INT32, [1]),
            value("total_sequence_length", TensorProto.INT32, []),
        ]

    def _caches(self, when: str, blocks: int, length: str) -> list[Any]:
        dims: list[int | str] = [1, self._shape.kv_heads, length, self._shape.head_dim]
        return [
            value(f"{when}_{k}_{part}", TYPES[self._dtype], dims)
            for k in range(blocks)
            for part in ("key", "value")
        ]


def _constants(slots: Sequence[Slot]) -> list[Any]:
    return integers.constants() if any(slot.kind == "integers" for slot in slots) else []
