"""What a GGUF file's metadata say of the model: sizes, kind of file, sampling."""

from __future__ import annotations

import msgspec
from gguf.constants import LlamaFileType

from build.shards.gguf_header import Header
from build.shards.rope import RopeFactors
from build.shards.source import LONGEST_CONTEXT, Architecture, CheckpointError, Shape
from pyodide_node.model.manifest import GenerationDefaults

__all__ = ["file_type", "generation_defaults", "shape_of"]

ARCHITECTURES: dict[str, Architecture] = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""By `general.architecture`; Mistral's models say llama there."""


def shape_of(header: Header, factors: RopeFactors | None, context_length: int | None) -> Shape:
    """The sizes; `factors` are those of `rope_freqs.weight`. Raises `CheckpointError`."""
    name = header.require("general.architecture", str)
    architecture = ARCHITECTURES.get(name)
    if architecture is None:
        raise CheckpointError(
            f"the architecture {name[:50]!r} is not supported; these are: "
            f"{', '.join(ARCHITECTURES)} (mistral's files say llama)"
        )

    def need(key: str) -> int:
        return header.require(f"{name}.{key}", int)

    if header.get(f"{name}.expert_count", int):
        raise CheckpointError("mixtures of experts are not supported")
    scaling = header.get(f"{name}.rope.scaling.type", str)
    if scaling not in (None, "none") or f"{name}.rope.scale_linear" in header.metadata:
        raise CheckpointError(f"rope scaling {scaling!r:.50} is not supported, only llama3's")
    hidden, heads = need("embedding_length"), need("attention.head_count")
    if heads < 1:
        raise CheckpointError(f"{heads} heads")
    kv_heads = header.get(f"{name}.attention.head_count_kv", int)
    head_dim = header.get(f"{name}.attention.key_length", int) or hidden // heads
    for key in ("attention.value_length", "rope.dimension_count"):
        if header.get(f"{name}.{key}", int) not in (None, head_dim):
            raise CheckpointError(f"{name}.{key} differs from the size of a head, {head_dim}")
    if factors is not None and len(factors.values) != head_dim // 2:
        raise CheckpointError(f"rope_freqs.weight has not {head_dim // 2} values")
    limits = [need("context_length"), LONGEST_CONTEXT]
    window = header.get(f"{name}.attention.sliding_window", int)
    limits += [limit for limit in (window, context_length) if limit]
    theta = header.get(f"{name}.rope.freq_base", float)
    return Shape(
        blocks=need("block_count"),
        hidden_size=hidden,
        intermediate_size=need("feed_forward_length"),
        heads=heads,
        kv_heads=heads if kv_heads is None else kv_heads,
        head_dim=head_dim,
        vocab_size=len(header.strings("tokenizer.ggml.tokens")),
        context_length=min(limits),
        rms_eps=header.require(f"{name}.attention.layer_norm_rms_epsilon", float),
        rope_theta=10000.0 if theta is None else theta,
        rope_scaling=factors,
        architecture=architecture,
        qkv_bias=architecture == "qwen2",
        qk_norm=architecture == "qwen3",
        tied="output.weight" not in header.tensors,
    )


def file_type(header: Header) -> str | None:
    """What people call such a file: `Q4_K_M`."""
    number = header.get("general.file_type", int)
    try:
        kind = LlamaFileType(-1 if number is None else number)
    except ValueError:
        return None
    return kind.name.removeprefix("MOSTLY_").removeprefix("ALL_")


def generation_defaults(header: Header) -> GenerationDefaults | None:
    """What the model's makers sample with. Raises `CheckpointError`."""
    at = "general.sampling"
    said = {
        "temperature": header.get(f"{at}.temp", float),
        "top_p": header.get(f"{at}.top_p", float),
        "top_k": header.get(f"{at}.top_k", int),
        "repetition_penalty": header.get(f"{at}.penalty_repeat", float),
    }
    try:
        defaults = msgspec.convert(said, GenerationDefaults, strict=True)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{at}: {error}") from None
    return None if defaults == GenerationDefaults() else defaults
