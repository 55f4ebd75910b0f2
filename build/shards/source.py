"""What a model is read from, whatever its files: sizes, tensors by name, tokenizer, papers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from build.shards.quantise import BLOCK, Floats, Quantised
from build.shards.rope import RopeScaling
from pyodide_node.errors import RemoteError
from pyodide_node.model.manifest import MAX_BLOCKS, Chat, GenerationDefaults

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Bits",
    "CheckpointError",
    "Progress",
    "Shape",
    "Source",
    "finite",
    "open_source",
    "silent",
    "tensor_shapes",
]

Architecture = Literal["llama", "mistral", "qwen2", "qwen3"]
Bits = Literal[4, 8, 16, 32]

Progress = Callable[[str, int, int], None]
"""Told what is being worked on, and how many of how many bytes are done."""

ARCHITECTURES: dict[str, Architecture] = {
    "llama": "llama", "mistral": "mistral", "qwen2": "qwen2", "qwen3": "qwen3",
}  # fmt: skip
"""What can be built, by the `model_type` of a config."""

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
NOT_A_PICKLE = (
    "it may be a pickle, which can run code when it is read, so it is never opened. Take the"
    " checkpoint's *.safetensors instead (most are published so too), or, where you trust the file,"
    " load it with transformers and save_pretrained(NEW_FOLDER) it"
)

LONGEST_CONTEXT = 1 << 20
"""Positions; what a manifest may say. A longer context is cut to it."""


class CheckpointError(RemoteError):
    """A checkpoint cannot be turned into shards; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a decoder of the Llama kind.

    Raises `CheckpointError` for sizes that no manifest holds, so that nothing is ever allocated by
    a number that a file merely claims.
    """

    blocks: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    context_length: int
    rms_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None = None
    architecture: Architecture = "llama"
    qkv_bias: bool = False
    """Query, key and value projections add a bias (Qwen2)."""
    qk_norm: bool = False
    """Each head's queries and keys are normalised before they are turned (Qwen3)."""
    tied: bool = False
    """The output matrix is the embedding."""

    def __post_init__(self) -> None:
        for name, least, most, multiple in _BOUNDS:
            value = getattr(self, name)
            if not least <= value <= most:
                raise CheckpointError(f"{name} is {value}; only {least} to {most} can be served")
            if value % multiple:
                raise CheckpointError(
                    f"{name} is {value}, not a multiple of {multiple}, so that it cannot be cut"
                    " into blocks of weights"
                )
        if self.heads % self.kv_heads:
            raise CheckpointError(f"{self.heads} heads cannot share {self.kv_heads} kv_heads")
        for name, least_, most_ in (("rms_eps", 0.0, 1.0), ("rope_theta", 1.0, 1e12)):
            value = getattr(self, name)
            if not (math.isfinite(value) and least_ <= value <= most_):
                raise CheckpointError(f"{name} is {value}; only {least_} to {most_:g} make sense")


_BOUNDS = (
    ("blocks", 1, MAX_BLOCKS, 1),
    ("hidden_size", BLOCK, 65536, BLOCK),
    ("intermediate_size", 8, 1 << 20, 1),
    ("heads", 1, 1024, 1),
    ("kv_heads", 1, 256, 1),
    ("head_dim", 8, 1024, 8),
    ("vocab_size", 2, 1 << 22, 1),
    ("context_length", 1, LONGEST_CONTEXT, 1),
)


def silent(what: str, done: int, of: int) -> None:
    """Progress that nobody follows."""


class Source(Protocol):
    """A model on disk. Tensors have the names that Hugging Face gives them, and come as float32,
    a few rows at a time, so that a big model never lies in memory whole. Every method that reads
    raises `CheckpointError`."""

    shape: Shape
    format: str
    """What people call the files: `safetensors BF16`, `GGUF Q4_K_M`."""
    bits: Bits
    """Of a weight, where the user does not choose: loses nothing, or little, of what is there."""
    bos_id: int | None
    """What the tokenizer itself puts before plain text."""
    eos_ids: list[int]
    license: str | None
    chat: Chat | None
    generation: GenerationDefaults | None

    def digest(self, progress: Progress = silent) -> str:
        """sha256 over every byte that decides the output."""
        ...

    def tokenizer(self) -> bytes:
        """The bytes of a tokenizer.json."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is a tensor of this name."""
        ...

    def rows(self, name: str, first: int, last: int) -> Floats:
        """Rows [first, last) of a matrix, or elements [first, last) of a vector."""
        ...

    def tensor(self, name: str, *dims: int) -> Floats:
        """The whole tensor, if it has these dimensions."""
        ...

    def quantised(self, name: str, bits: int, first: int, last: int) -> Quantised | None:
        """Rows as the file has them already, in blocks of 32 of `bits` bits: nothing is lost.
        None where the file has something else."""
        ...


def finite(name: str, values: Floats) -> Floats:
    """The same values; `CheckpointError` if one of them is infinite or no number at all."""
    if not np.isfinite(values).all():
        raise CheckpointError(f"{name} has values that are no numbers: the file is broken")
    return values


def tensor_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Every tensor that a model of these sizes has, by name; a tied head has none of its own."""
    s = shape
    queries, keys = s.heads * s.head_dim, s.kv_heads * s.head_dim
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (s.hidden_size,),
        "post_attention_layernorm.weight": (s.hidden_size,),
        "self_attn.q_proj.weight": (queries, s.hidden_size),
        "self_attn.k_proj.weight": (keys, s.hidden_size),
        "self_attn.v_proj.weight": (keys, s.hidden_size),
        "self_attn.o_proj.weight": (s.hidden_size, queries),
        "mlp.gate_proj.weight": (s.intermediate_size, s.hidden_size),
        "mlp.up_proj.weight": (s.intermediate_size, s.hidden_size),
        "mlp.down_proj.weight": (s.hidden_size, s.intermediate_size),
    }
    if s.qkv_bias:
        layer |= {
            "self_attn.q_proj.bias": (queries,),
            "self_attn.k_proj.bias": (keys,),
            "self_attn.v_proj.bias": (keys,),
        }
    if s.qk_norm:
        layer |= {
            "self_attn.q_norm.weight": (s.head_dim,),
            "self_attn.k_norm.weight": (s.head_dim,),
        }
    every = {
        f"model.layers.{index}.{name}": dims
        for index in range(s.blocks)
        for name, dims in layer.items()
    }
    every["model.embed_tokens.weight"] = (s.vocab_size, s.hidden_size)
    every["model.norm.weight"] = (s.hidden_size,)
    if not s.tied:
        every["lm_head.weight"] = (s.vocab_size, s.hidden_size)
    return every


def open_source(path: Path, context_length: int | None = None) -> Source:
    """What `path` is: a folder as Hugging Face publishes it, or a GGUF file.

    `context_length` caps the positions served. Raises `CheckpointError`.
    """
    # Both readers import this module for what they share.
    from build.shards.gguf import GgufFile
    from build.shards.gguf_header import MAGIC
    from build.shards.huggingface import Checkpoint

    if path.is_dir():
        return Checkpoint(path, context_length)
    if not path.exists():
        raise CheckpointError(f"there is nothing at {path}")
    if path.suffix.lower() in PICKLES:
        raise CheckpointError(f"{path.name}: {NOT_A_PICKLE}")
    try:
        begins = b""
        if path.is_file():  # and no pipe, whose other end may never come
            with path.open("rb") as file:
                begins = file.read(len(MAGIC))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    if begins == MAGIC:
        return GgufFile(path, context_length)
    if path.suffix == ".safetensors":
        raise CheckpointError(f"{path.name} alone is not enough: give its folder, {path.parent}")
    raise CheckpointError(
        f"{path} is neither a folder with config.json, tokenizer.json and *.safetensors nor a GGUF"
        " file: give one of these"
    )
