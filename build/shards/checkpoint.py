"""A Llama checkpoint on disk: `config.json`, `*.safetensors`, `tokenizer.json`."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - numpy knows bfloat16 by name only once this is imported
import numpy as np
from safetensors import safe_open

from build.shards.quantise import BLOCK, Floats
from build.shards.rope import Llama3Scaling


class CheckpointError(Exception):
    """The checkpoint cannot be turned into shards; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a Llama decoder."""

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
    rope_scaling: Llama3Scaling | None = None


class Checkpoint:
    """Reads tensors as float32, one at a time, so that a big model never lies in memory whole."""

    def __init__(self, folder: Path, context_length: int | None = None) -> None:
        """Raises `CheckpointError` for a folder that is not a plain Llama of whole int4 blocks.

        `context_length` caps the positions served (and with them the rotary tables).
        """
        self.folder = folder
        config = _config(folder)
        try:
            self.shape = _shape(config, context_length)
        except KeyError as missing:
            raise CheckpointError(f"{folder}/config.json has no {missing}") from None
        self.bos_id: int | None = config.get("bos_token_id")
        eos = config.get("eos_token_id")
        self.eos_ids: list[int] = [] if eos is None else eos if isinstance(eos, list) else [eos]
        self.license = _license(folder)
        self._weights = sorted(folder.glob("*.safetensors"))
        if not self._weights:
            raise CheckpointError(f"no *.safetensors in {folder}: convert the checkpoint first")
        self._file_of: dict[str, Path] = {}
        for path in self._weights:
            with safe_open(path, framework="numpy") as tensors:
                self._file_of.update(dict.fromkeys(tensors.keys(), path))

    def tensor(self, name: str, *shape: int) -> Floats:
        """The named tensor as f32; `CheckpointError` when it is missing or of another shape."""
        path = self._file_of.get(name)
        if path is None:
            raise CheckpointError(f"{self.folder} has no tensor {name}: is it a Llama?")
        with safe_open(path, framework="numpy") as tensors:
            value = np.asarray(tensors.get_tensor(name)).astype(np.float32)
        if value.shape != shape:
            raise CheckpointError(f"{name} is {value.shape}, config.json says {shape}")
        return value

    def embedding(self) -> Floats:
        """f32[vocab, hidden]"""
        return self.tensor(
            "model.embed_tokens.weight", self.shape.vocab_size, self.shape.hidden_size
        )

    def output_matrix(self) -> Floats:
        """f32[vocab, hidden]: the embedding again where the checkpoint ties the two."""
        if "lm_head.weight" in self._file_of:
            return self.tensor("lm_head.weight", self.shape.vocab_size, self.shape.hidden_size)
        return self.embedding()

    def tokenizer(self) -> bytes:
        """The bytes of tokenizer.json."""
        return (self.folder / "tokenizer.json").read_bytes()

    def digest(self) -> str:
        """sha256 over every file that the shards depend on."""
        total = hashlib.sha256()
        names = ["config.json", "tokenizer.json", *(path.name for path in self._weights)]
        for name in names:
            with (self.folder / name).open("rb") as file:
                part = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{name} {part}\n".encode())
        return total.hexdigest()


def _config(folder: Path) -> dict[str, Any]:
    try:
        loaded = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} has no config.json: give a checkpoint folder") from None
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{folder}/config.json is not an object")
    return loaded


def _shape(config: dict[str, Any], context_length: int | None) -> Shape:
    plain: dict[str, tuple[Any, ...]] = {
        "model_type": ("llama",),
        "hidden_act": ("silu", None),
        "attention_bias": (False, None),
        "mlp_bias": (False, None),
    }
    for key, wanted in plain.items():
        if config.get(key) not in wanted:
            raise CheckpointError(f"{key}={config.get(key)!r} is not supported, only {wanted[0]!r}")
    # Configs name the same settings rope_parameters or, older, rope_scaling.
    rope: dict[str, Any] = config.get("rope_parameters") or config.get("rope_scaling") or {}
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    longest = config["max_position_embeddings"]
    shape = Shape(
        blocks=config["num_hidden_layers"],
        hidden_size=hidden,
        intermediate_size=config["intermediate_size"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or hidden // heads,
        vocab_size=config["vocab_size"],
        context_length=min(longest, context_length or longest),
        rms_eps=config["rms_norm_eps"],
        rope_theta=rope.get("rope_theta") or config["rope_theta"],
        rope_scaling=_scaling(rope),
    )
    for name in ("hidden_size", "intermediate_size"):
        if getattr(shape, name) % BLOCK:
            raise CheckpointError(f"{name} must be a multiple of {BLOCK} for int4 blocks")
    if shape.heads * shape.head_dim % BLOCK:
        raise CheckpointError(f"heads x head_dim must be a multiple of {BLOCK} for int4 blocks")
    return shape


def _scaling(rope: dict[str, Any]) -> Llama3Scaling | None:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return None
    if kind != "llama3":
        raise CheckpointError(f"rope_type={kind!r} is not supported, only 'default' and 'llama3'")
    fields = Llama3Scaling.__dataclass_fields__
    return Llama3Scaling(**{name: rope[name] for name in fields})


def _license(folder: Path) -> str | None:
    """The `license:` line of the model card's front matter, as Hugging Face writes it."""
    for name in ("MODEL_CARD.md", "README.md"):
        path = folder / name
        if path.is_file():
            front = re.match(r"---\n(.*?)\n---\n", path.read_text(encoding="utf-8"), re.DOTALL)
            line = re.search(r"^license:\s*(\S+)", front.group(1), re.MULTILINE) if front else None
            if line:
                return line.group(1)
    return None
