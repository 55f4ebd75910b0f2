"""A model as wide as an 8B Llama, of random weights: every block is the same file.

Files are stored by hash, so that any number of blocks costs the disk one layer. Made from the
parts of build/shards and not by its builder, which would quantise a fifth of a billion weights
for each block.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from build.shards.graphs import GraphMaker
from build.shards.layout import Part, Slot, expansion, pack
from build.shards.quantise import BLOCK, Quantised, quantise
from build.shards.reference import WholeModel
from build.shards.rope import rotary_tables
from build.shards.source import Shape
from pyodide_node.inference.manifest import (
    FORMAT,
    Blob,
    Expansion,
    Graphs,
    Manifest,
    Reference,
    VariantGraphs,
    encode_manifest,
)
from pyodide_node.inference.pieces import describe

__all__ = ["LLAMA_8B", "make_wide_model"]

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
    table = random.normal(0, 1, (shape.vocab_size, shape.hidden_size)).astype(np.float32)
    embed_slots, embed = pack({"table": table.astype(np.float16)})
    norm = np.ones(shape.hidden_size, np.float32)
    # Another matrix than the embedding: else every token would be followed by itself.
    matrix = random.normal(0, 1, table.shape).astype(np.float32) / shape.hidden_size**0.5
    head_slots, head = pack({"norm": norm, "lm_head": quantise(matrix)})
    cos, sin = rotary_tables(
        shape.context_length, shape.head_dim, shape.rope_theta, shape.rope_scaling
    )
    rope_slots, rope = pack({"cos": cos, "sin": sin})
    layer_slots, layer = pack(_layer(shape, random))
    rope_blob, layer_blob = put(rope), put(layer)

    def graphs(maker: GraphMaker, expand: Expansion | None = None) -> VariantGraphs:
        wanted = spans or range(1, shape.blocks + 1)
        made = {str(count): put(maker.span(count)) for count in wanted}
        any_one = next(iter(made.values()))
        every = {str(n): made.get(str(n), any_one) for n in range(1, shape.blocks + 1)}
        return VariantGraphs(head=put(maker.head()), spans=every, expand=expand)

    def maker(layer: list[Slot], head: list[Slot], *, expanded: bool) -> GraphMaker:
        return GraphMaker(
            shape, expanded=expanded, rope=rope_slots, embed=embed_slots, layer=layer, head=head
        )

    packed = maker(layer_slots, head_slots, expanded=False)
    wide_layer, layer_steps = expansion(layer_slots)
    wide_head, head_steps = expansion(head_slots)
    whole = packed.whole()
    ids = [0]
    if answer:
        files = {"embed.bin": embed, "rope.bin": rope, "head.bin": head}
        files |= {f"layer{k}.bin": layer for k in range(shape.blocks)}
        ids, _ = WholeModel(whole, files).greedy(PROMPT, answer)
    manifest = Manifest(
        format=FORMAT,
        name="wide",
        architecture="llama",
        license="CC0-1.0",
        blocks=shape.blocks,
        hidden_size=shape.hidden_size,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        vocab_size=shape.vocab_size,
        context_length=shape.context_length,
        bos_id=PROMPT[0],
        eos_ids=[],
        bits=4,
        ends_bits=4,
        block_size=BLOCK,
        tokenizer=put(_tokenizer(shape.vocab_size)),
        rope=rope_blob,
        embed=put(embed),
        head=put(head),
        layers=[layer_blob] * shape.blocks,
        graphs=Graphs(
            embed=put(packed.embed()),
            whole=put(whole),
            variants={
                "gpu-fp32": graphs(packed),
                "wasm-expanded": graphs(
                    maker(wide_layer, wide_head, expanded=True),
                    Expansion(layer=layer_steps, head=head_steps),
                ),
            },
        ),
        reference=Reference(prompt="w5w9w13", prompt_ids=PROMPT, ids=ids),
    )
    data = encode_manifest(manifest)
    (folder / "manifest.json").write_bytes(data)
    return manifest


def _layer(shape: Shape, random: np.random.Generator) -> dict[str, Part]:
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    norm = np.ones(shape.hidden_size, np.float32)

    def matrix(rows: int, columns: int) -> Quantised:
        packed = random.integers(0, 256, (rows, columns // BLOCK, BLOCK // 2), np.uint8)
        # Nibbles are -8 to 7, 4.6 from 0 on average: outputs are about as large as inputs.
        scale = 1 / 4.6 / columns**0.5
        scales = np.full((rows, columns // BLOCK), scale, np.float16)
        return Quantised(packed=packed, scales=scales)

    return {
        "attention_norm": norm,
        "qkv": matrix(queries + 2 * keys, shape.hidden_size),
        "o": matrix(shape.hidden_size, queries),
        "mlp_norm": norm,
        "gate": matrix(shape.intermediate_size, shape.hidden_size),
        "up": matrix(shape.intermediate_size, shape.hidden_size),
        "down": matrix(shape.hidden_size, shape.intermediate_size),
    }


def _tokenizer(size: int) -> bytes:
    """Words "w0", "w1", …: one a token."""
    words = Tokenizer(models.WordLevel({f"w{n}": n for n in range(size)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return words.to_str().encode()
