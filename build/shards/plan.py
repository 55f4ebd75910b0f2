"""The manifest that a checkpoint would get, without reading a weight: what plans are made of."""

from __future__ import annotations

import hashlib
from pathlib import Path

from build.shards.gguf import GgufFile
from build.shards.huggingface import config_shape
from build.shards.layout import expansion, integers, lay_out, size_of
from build.shards.source import Bits, CheckpointError, Shape, open_source
from build.shards.weights import check_blocks, embed_parts, ends_bits, head_parts, layer_parts
from pyodide_node.model.manifest import (
    ALIGN,
    FORMAT,
    Blob,
    Expansion,
    Graphs,
    Manifest,
    Reference,
    Variant,
    VariantGraphs,
)

__all__ = ["plan_checkpoint", "plan_shape"]

_DEFAULT_BITS: Bits = 4


def plan_checkpoint(path: Path, bits: Bits | None, context_length: int | None) -> Manifest:
    """Of a GGUF file, or of a folder of which only config.json must be there.

    Raises `CheckpointError`.
    """
    if path.is_dir():
        shape = config_shape(path, context_length)
        return plan_shape(shape, bits or _DEFAULT_BITS, path.resolve().name)
    source = open_source(path, context_length)
    if not isinstance(source, GgufFile):
        raise CheckpointError(f"{path} is neither a folder with config.json nor a GGUF file")
    return plan_shape(source.shape, bits or source.bits, path.name)


def plan_shape(shape: Shape, bits: Bits, name: str) -> Manifest:
    """A manifest whose sizes are those of a built one, and whose hashes are of nothing."""
    check_blocks(shape, bits)
    ends = ends_bits(shape, bits)
    layer, head = lay_out(layer_parts(shape, 0, bits)), lay_out(head_parts(shape, ends))
    embed = _blob("embed", size_of(lay_out(embed_parts(shape, ends))))
    expand = Expansion(layer=expansion(layer)[1], head=expansion(head)[1])
    graph = _blob("graph", 1)
    spans = {str(count): graph for count in range(1, shape.blocks + 1)}
    exact = VariantGraphs(head=graph, spans=spans)
    variants: dict[Variant, VariantGraphs] = {
        "gpu-fp32": exact,
        "gpu-fp16": exact,
        "wasm-expanded": VariantGraphs(head=graph, spans=spans, expand=expand),
    }
    if any(slot.kind == "packed" for slot in layer):
        expand = Expansion(layer=integers(layer)[1], head=integers(head)[1])
        variants["wasm-int8"] = VariantGraphs(head=graph, spans=spans, expand=expand)
    table = shape.context_length * shape.head_dim // 2 * 4
    return Manifest(
        format=FORMAT,
        name=name[:100] or "model",
        architecture=shape.architecture,
        license="unknown",
        blocks=shape.blocks,
        hidden_size=shape.hidden_size,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        vocab_size=shape.vocab_size,
        context_length=shape.context_length,
        bos_id=None,
        eos_ids=[],
        bits=bits,
        ends_bits=ends,
        block_size=32,
        tokenizer=graph,
        rope=_blob("rope", table + -table % ALIGN + table),
        embed=embed,
        head=embed if shape.tied else _blob("head", size_of(head)),
        layers=[_blob(f"layer {index}", size_of(layer)) for index in range(shape.blocks)],
        graphs=Graphs(
            embed=graph,
            whole=graph,
            variants=variants,
        ),
        reference=Reference(prompt="none", prompt_ids=[0], ids=[0]),
    )


def _blob(what: str, size: int) -> Blob:
    return Blob(sha256=hashlib.sha256(what.encode()).hexdigest(), bytes=size)
