"""`config.json` and `generation_config.json` of Hugging Face checkpoints, checked."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from build.shards.rope import Llama3Scaling
from build.shards.small_files import parse_json
from build.shards.source import ARCHITECTURES, LONGEST_CONTEXT, CheckpointError, Shape
from pyodide_node.model.manifest import GenerationDefaults

__all__ = ["Config", "generation_defaults", "read_config", "shape_of", "token_ids"]

_QWEN3_HEAD_DIM = 128
"""transformers' own default where a Qwen3 config leaves head_dim out."""


class _Kind(Struct):
    model_type: str
    architectures: list[str] | None = None
    quantization_config: dict[str, Any] | None = None


class Config(Struct, kw_only=True):
    """What is read of a `config.json`; names as there."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    vocab_size: int
    max_position_embeddings: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str | None = None
    rms_norm_eps: float = 1e-6
    rope_theta: float | None = None
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None
    partial_rotary_factor: float | None = None
    attention_bias: bool | None = None
    mlp_bias: bool | None = None
    sliding_window: int | None = None
    use_sliding_window: bool | None = None
    tie_word_embeddings: bool = False
    eos_token_id: int | list[int] | None = None
    model_type: str


class _Generation(Struct, kw_only=True):
    do_sample: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    eos_token_id: int | list[int] | None = None


class _Scaling(Struct):
    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


def read_config(data: bytes) -> Config:
    """Raises `CheckpointError` for a config that is broken or of an architecture that is not
    supported, whose name it says."""
    kind = parse_json("config.json", data, _Kind)
    if kind.model_type not in ARCHITECTURES:
        raise CheckpointError(
            f"config.json: the architecture {kind.model_type!r} is not supported; these are:"
            f" {', '.join(ARCHITECTURES)}"
        )
    if kind.architectures and not any(name.endswith("ForCausalLM") for name in kind.architectures):
        raise CheckpointError(
            f"config.json: {kind.architectures[0][:100]} is not a language model that writes text;"
            " only ...ForCausalLM is supported"
        )
    if kind.quantization_config:
        how = kind.quantization_config.get("quant_method", "some way")
        raise CheckpointError(
            f"config.json: the weights are quantised already ({how!s:.50}), which is not supported;"
            " take the original checkpoint, or a GGUF file"
        )
    config = parse_json("config.json", data, Config)
    _only(config, "hidden_act", ("silu", None))
    _only(config, "mlp_bias", (False, None))
    _only(config, "partial_rotary_factor", (1.0, None))
    if config.model_type in ("llama", "qwen3"):
        _only(config, "attention_bias", (False, None))
    return config


def shape_of(config: Config, tied: bool, context_length: int | None) -> Shape:
    """The sizes; the context is cut to `context_length`, to what a manifest holds, and to the
    sliding window, since within it a sliding attention is a full one."""
    heads, hidden = config.num_attention_heads, config.hidden_size
    if heads < 1:
        raise CheckpointError(f"config.json: num_attention_heads is {heads}")
    # Configs name the same settings rope_parameters or, older, rope_scaling.
    rope = config.rope_parameters or config.rope_scaling or {}
    theta = rope.get("rope_theta", config.rope_theta)
    if theta is None:
        theta = 10000.0
    if not isinstance(theta, int | float) or isinstance(theta, bool):
        raise CheckpointError("config.json: rope_theta is not a number")
    limits = [config.max_position_embeddings, LONGEST_CONTEXT]
    if context_length is not None:
        limits.append(context_length)
    # Qwen's configs name a window also where it is not used.
    slides = config.use_sliding_window if config.model_type.startswith("qwen") else True
    if config.sliding_window is not None and slides:
        limits.append(config.sliding_window)
    head_dim = config.head_dim
    if head_dim is None:
        head_dim = _QWEN3_HEAD_DIM if config.model_type == "qwen3" else hidden // heads
    return Shape(
        blocks=config.num_hidden_layers,
        hidden_size=hidden,
        intermediate_size=config.intermediate_size,
        heads=heads,
        kv_heads=heads if config.num_key_value_heads is None else config.num_key_value_heads,
        head_dim=head_dim,
        vocab_size=config.vocab_size,
        context_length=min(limits),
        rms_eps=config.rms_norm_eps,
        rope_theta=float(theta),
        rope_scaling=_scaling(rope, config.max_position_embeddings),
        architecture=ARCHITECTURES[config.model_type],
        qkv_bias=config.model_type == "qwen2",
        qk_norm=config.model_type == "qwen3",
        tied=tied,
    )


def generation_defaults(data: bytes | None) -> tuple[GenerationDefaults | None, list[int]]:
    """Of `generation_config.json`: what its makers sample with, and the ids that end an answer.

    A model that its makers do not sample from (`do_sample` false) has temperature 0.
    """
    if data is None:
        return None, []
    said = parse_json("generation_config.json", data, _Generation)
    defaults = GenerationDefaults(
        temperature=0.0 if said.do_sample is False else said.temperature,
        top_p=said.top_p,
        top_k=said.top_k,
        repetition_penalty=said.repetition_penalty,
    )
    try:
        msgspec.convert(msgspec.to_builtins(defaults), GenerationDefaults, strict=True)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"generation_config.json: {error}") from None
    empty = GenerationDefaults()
    return (None if defaults == empty else defaults), token_ids(said.eos_token_id)


def token_ids(value: int | list[int] | None) -> list[int]:
    """One id, several or none, as configs write them."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _only(config: Config, name: str, wanted: tuple[object, ...]) -> None:
    value = getattr(config, name)
    if value not in wanted:
        raise CheckpointError(f"config.json: {name}={value!r} is not supported, only {wanted[0]!r}")


def _scaling(rope: dict[str, Any], longest: int) -> Llama3Scaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise CheckpointError(
            f"config.json: rope_type={kind!r:.50} is not supported, only 'default' and 'llama3';"
            " without it the model serves the positions it was trained on"
        )
    try:
        said = msgspec.convert(rope, _Scaling, strict=True)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"config.json: llama3 rope: {error}") from None
    if not (
        said.factor > 0
        and said.high_freq_factor > said.low_freq_factor > 0
        and 0 < said.original_max_position_embeddings <= max(longest, LONGEST_CONTEXT)
    ):
        raise CheckpointError(f"config.json: the llama3 rope does not add up: {said}")
    return Llama3Scaling(
        factor=said.factor,
        low_freq_factor=said.low_freq_factor,
        high_freq_factor=said.high_freq_factor,
        original_max_position_embeddings=said.original_max_position_embeddings,
    )
