"""A tiny random checkpoint of the default model's form, and its shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from build.shards.builder import build
from build.shards.huggingface import Checkpoint
from pyodide_node.model.manifest import Manifest, decode_manifest

HIDDEN, INTER, HEADS, KV, HEAD_DIM, BLOCKS = 64, 96, 4, 2, 16, 8

CONFIG = {
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "intermediate_size": INTER,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV,
    "head_dim": HEAD_DIM,
    "num_hidden_layers": BLOCKS,
    "max_position_embeddings": 96,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


FAMILIES: dict[str, dict[str, object]] = {
    "llama": {
        "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
        },
        "tie_word_embeddings": False,
    },
    "mistral": {"sliding_window": 80, "tie_word_embeddings": False},
    "qwen2": {},
    # Heads wider than hidden_size / heads.
    "qwen3": {"head_dim": 32, "tie_word_embeddings": False},
}  # fmt: skip
"""What the config of a checkpoint of each family says otherwise."""


def write_checkpoint(
    folder: Path,
    seed: int = 0,
    family: str | None = None,
    inter: int = INTER,
    **changes: object,
) -> Path:
    """A random Llama, or one of `FAMILIES`, with a tokenizer that knows single bytes only.

    `changes` are to what config.json says, not to the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(["<|bos|>", "<|eos|>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|bos|>", "<|eos|>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", 0)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {**CONFIG, "vocab_size": len(vocab), "intermediate_size": inter}
    if family:
        config |= {"model_type": family, **FAMILIES[family]}
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    (folder / "MODEL_CARD.md").write_text("---\nlicense: mit\n---\nRandom.\n")
    save_file(_tensors(config, np.random.default_rng(seed)), folder / "model.safetensors")
    return folder


def _tensors(config: dict[str, Any], draw: np.random.Generator) -> dict[str, np.ndarray]:
    def matrix(rows: int, columns: int) -> np.ndarray:
        return (draw.standard_normal((rows, columns)) * 1.4 / columns**0.5).astype(np.float16)

    def norm(size: int = HIDDEN) -> np.ndarray:
        return (1 + draw.standard_normal(size) * 0.1).astype(np.float16)

    family, vocab, inter = (
        config[name] for name in ("model_type", "vocab_size", "intermediate_size")
    )
    queries, keys = HEADS * config["head_dim"], KV * config["head_dim"]
    tensors = {"model.embed_tokens.weight": matrix(vocab, HIDDEN), "model.norm.weight": norm()}
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = matrix(vocab, HIDDEN)
    for layer in range(BLOCKS):
        at = f"model.layers.{layer}"
        tensors |= {
            f"{at}.input_layernorm.weight": norm(),
            f"{at}.post_attention_layernorm.weight": norm(),
            f"{at}.self_attn.q_proj.weight": matrix(queries, HIDDEN),
            f"{at}.self_attn.k_proj.weight": matrix(keys, HIDDEN),
            f"{at}.self_attn.v_proj.weight": matrix(keys, HIDDEN),
            f"{at}.self_attn.o_proj.weight": matrix(HIDDEN, queries),
            f"{at}.mlp.gate_proj.weight": matrix(inter, HIDDEN),
            f"{at}.mlp.up_proj.weight": matrix(inter, HIDDEN),
            f"{at}.mlp.down_proj.weight": matrix(HIDDEN, inter),
        }
        if family == "qwen2":
            for name, size in (("q", queries), ("k", keys), ("v", keys)):
                bias = (draw.standard_normal(size) * 0.3).astype(np.float16)
                tensors[f"{at}.self_attn.{name}_proj.bias"] = bias
        if family == "qwen3":
            for name in ("q_norm", "k_norm"):
                tensors[f"{at}.self_attn.{name}.weight"] = norm(config["head_dim"])
    return tensors


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint(write_checkpoint(tmp_path_factory.mktemp("checkpoint")))


@pytest.fixture(scope="session")
def shards(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    build(checkpoint, folder, "tiny")
    return folder


@pytest.fixture(scope="session")
def manifest(shards: Path) -> Manifest:
    return decode_manifest((shards / "manifest.json").read_bytes())
