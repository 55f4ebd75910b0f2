"""A model as wide as an 8B Llama, of random weights: every block is the same file.

Files are stored by hash, so that any number of blocks costs the disk one layer. Made from the
parts of build/shards and not by its builder, which would quantise a fifth of a billion weights
for each block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers

from build.shards.graphs import GraphMaker, Precision
from build.shards.layout import Part, Slot, expansion, integers, lay_out, size_of
from build.shards.plan import plan_shape
from build.shards.quantise import BLOCK
from build.shards.reference import WholeModel
from build.shards.rope import rotary_tables
from build.shards.source import Shape
from pyodide_node.hosts.expansion import dequantised
from pyodide_node.hosts.native.runtime import open_session
from pyodide_node.model.manifest import (
    Blob,
    ExpandStep,
    Expansion,
    Graphs,
    Manifest,
    Reference,
    VariantGraphs,
    encode_manifest,
)
from pyodide_node.model.pieces import describe

__all__ = ["LLAMA_8B", "LLAMA_8B_ENDS", "embedded_rows", "make_wide_model", "native_head"]

LLAMA_8B = Shape(
    blocks=1,
    hidden_size=4096,
    intermediate_size=14336,
    heads=32,
    kv_heads=8,
    head_dim=128,
    vocab_size=512,
    context_length=512,
    rms_eps=1e-5,
    rope_theta=500000.0,
)
"""Of Llama 3.1 8B, but for a small vocabulary and context."""

LLAMA_8B_ENDS = replace(LLAMA_8B, vocab_size=128256, intermediate_size=256, heads=2, kv_heads=1)
"""Embedding and head of Llama 3.1 8B, about a small block."""

PROMPT = [1, 5, 9, 13]


def make_wide_model(
    folder: Path, shape: Shape, *, spans: Sequence[int] | None = None, answer: int = 0
) -> Manifest:
    """Writes `folder/manifest.json` and `folder/blobs`; a few seconds.

    `spans` are the numbers of blocks that get graphs of their own (all by default); the others
    repeat the first. `answer` greedy ids of the unsplit model become the reference.
    """
    blobs = folder / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)

    def put(data: bytes) -> Blob:
        blob, root = describe(data)
        (blobs / blob.sha256).write_bytes(data)
        if root is not None and blob.dag is not None:
            (blobs / blob.dag).write_bytes(root)
        return blob

    random = np.random.default_rng(8)
    embed_slots = lay_out([_table(shape)])
    head_slots = lay_out([Part("norm", ("norm",), (shape.hidden_size,)), _table(shape)])
    layer_slots = lay_out(_layer(shape))
    cos, sin = rotary_tables(
        shape.context_length, shape.head_dim, shape.rope_theta, shape.rope_scaling
    )
    rope_slots = lay_out([Part(name, (), (len(cos),), cos.shape[1]) for name in ("cos", "sin")])
    embed, head, layer = (_fill(slots, random) for slots in (embed_slots, head_slots, layer_slots))
    rope = bytearray(size_of(rope_slots))
    for slot, table in zip(rope_slots, (cos, sin), strict=True):
        rope[slot.offset : slot.end] = table.astype("<f4").tobytes()
    layer_blob = put(layer)

    def maker(layer: list[Slot], head: list[Slot], precision: Precision = "single") -> GraphMaker:
        return GraphMaker(
            shape, precision, rope=rope_slots, embed=embed_slots, layer=layer, head=head
        )

    def graphs(maker: GraphMaker, expand: Expansion | None = None) -> VariantGraphs:
        wanted = spans or range(1, shape.blocks + 1)
        made = {str(count): put(maker.span(count)) for count in wanted}
        any_one = next(iter(made.values()))
        every = {str(n): made.get(str(n), any_one) for n in range(1, shape.blocks + 1)}
        return VariantGraphs(head=put(maker.head()), spans=every, expand=expand)

    def expanded(form: Callable[..., tuple[list[Slot], list[ExpandStep]]]) -> VariantGraphs:
        (wide_layer, layer_steps), (wide_head, head_steps) = form(layer_slots), form(head_slots)
        steps = Expansion(layer=layer_steps, head=head_steps)
        return graphs(maker(wide_layer, wide_head), steps)

    packed = maker(layer_slots, head_slots)
    whole = packed.whole()
    ids = [0]
    if answer:
        files = {"embed.bin": embed, "rope.bin": bytes(rope), "head.bin": head}
        files |= {f"layer{k}.bin": layer for k in range(shape.blocks)}
        ids, _ = WholeModel(whole, files).greedy(PROMPT, answer)
    manifest = msgspec.structs.replace(
        plan_shape(shape, 4, "wide"),
        license="CC0-1.0",
        bos_id=PROMPT[0],
        tokenizer=put(_tokenizer(shape.vocab_size)),
        rope=put(bytes(rope)),
        embed=put(embed),
        head=put(head),
        layers=[layer_blob] * shape.blocks,
        graphs=Graphs(
            embed=put(packed.embed()),
            whole=put(whole),
            variants={
                "gpu-fp32": graphs(packed),
                "gpu-fp16": graphs(maker(layer_slots, head_slots, "half")),
                "wasm-expanded": expanded(expansion),
                "wasm-int8": expanded(integers),
            },
        ),
        reference=Reference(prompt="w5 w9 w13", prompt_ids=PROMPT, ids=ids),
    )
    data = encode_manifest(manifest)
    (folder / "manifest.json").write_bytes(data)
    return manifest


def embedded_rows(folder: Path, manifest: Manifest, ids: list[int]) -> NDArray[np.float32]:
    """The rows of a table that starts its file, dequantised."""
    file, (rows, k) = (
        folder / "blobs" / manifest.embed.sha256,
        (manifest.vocab_size, manifest.hidden_size),
    )
    packed = np.memmap(file, np.uint8, "r", 0, (rows, k // 32, 16))
    scales = np.memmap(file, "<f2", "r", rows * k // 2, (rows, k // 32))
    return dequantised(packed[ids], scales[ids])


def native_head(
    folder: Path, manifest: Manifest, hidden: NDArray[np.float32]
) -> tuple[list[int], list[float], float]:
    """The head's four best, their values, and the logarithm of the sum."""
    graph, file = (
        (folder / "blobs" / blob.sha256).read_bytes()
        for blob in (manifest.graph("gpu-fp32", "head"), manifest.head)
    )
    feeds = {"hidden_in": hidden[None], "temperature": np.ones(1, "f4"), "k": np.array([4])}
    names = ["top_indices", "top_values", "logsumexp"]
    best, values, total = open_session(graph, {"head.bin": file}, 1).run(names, feeds)
    return best[0].tolist(), values[0].tolist(), float(total[0])


def _layer(shape: Shape) -> list[Part]:
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    wide, narrow = shape.intermediate_size, shape.hidden_size

    def matrix(name: str, rows: int, columns: int) -> Part:
        return Part(name, (name,), (rows,), columns, 4, turned=True)

    return [
        Part("attention_norm", ("norm",), (narrow,)),
        matrix("qkv", queries + 2 * keys, narrow),
        matrix("o", narrow, queries),
        Part("mlp_norm", ("norm",), (narrow,)),
        matrix("gate", wide, narrow),
        matrix("up", wide, narrow),
        matrix("down", narrow, wide),
    ]


def _table(shape: Shape) -> Part:
    return Part("table", ("table",), (shape.vocab_size,), shape.hidden_size, 4)


def _fill(slots: list[Slot], random: np.random.Generator) -> bytes:
    """Norms of ones, and matrices whose outputs are about as large as their inputs."""
    file = bytearray(size_of(slots))
    for slot in slots:
        match slot.kind:
            case "packed":
                data: Any = random.integers(0, 256, slot.length, np.uint8)
            case "scales":  # of nibbles from -8 to 7, 4.6 from 0 on average
                scale = 1 / 4.6 / (slot.dims[1] * BLOCK) ** 0.5
                data = np.full(slot.dims, scale, "<f2")
            case _:
                data = np.ones(slot.dims, "<f4")
        file[slot.offset : slot.end] = data.tobytes()
    return bytes(file)


def _tokenizer(size: int) -> bytes:
    """Words "w0", "w1", …: one a token."""
    words = Tokenizer(models.WordLevel({f"w{n}": n for n in range(size)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return words.to_str().encode()
