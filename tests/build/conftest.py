"""A tiny random checkpoint of the default model's form, and its shards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from build.shards.builder import build
from build.shards.huggingface import Checkpoint
from pyodide_node.inference.manifest import Manifest, decode_manifest

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


def write_checkpoint(folder: Path, seed: int = 0, **changes: object) -> Path:
    """A random Llama with a tokenizer that knows single bytes only."""
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
    config = {**CONFIG, "vocab_size": len(vocab), **changes}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "MODEL_CARD.md").write_text("---\nlicense: mit\n---\nRandom.\n")
    draw = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return (draw.standard_normal((rows, columns)) * 1.4 / columns**0.5).astype(np.float16)

    def norm() -> np.ndarray:
        return (1 + draw.standard_normal(HIDDEN) * 0.1).astype(np.float16)

    tensors = {"model.embed_tokens.weight": matrix(len(vocab), HIDDEN), "model.norm.weight": norm()}
    for layer in range(BLOCKS):
        at = f"model.layers.{layer}"
        tensors |= {
            f"{at}.input_layernorm.weight": norm(),
            f"{at}.post_attention_layernorm.weight": norm(),
            f"{at}.self_attn.q_proj.weight": matrix(HEADS * HEAD_DIM, HIDDEN),
            f"{at}.self_attn.k_proj.weight": matrix(KV * HEAD_DIM, HIDDEN),
            f"{at}.self_attn.v_proj.weight": matrix(KV * HEAD_DIM, HIDDEN),
            f"{at}.self_attn.o_proj.weight": matrix(HIDDEN, HEADS * HEAD_DIM),
            f"{at}.mlp.gate_proj.weight": matrix(INTER, HIDDEN),
            f"{at}.mlp.up_proj.weight": matrix(INTER, HIDDEN),
            f"{at}.mlp.down_proj.weight": matrix(HIDDEN, INTER),
        }
    save_file(tensors, folder / "model.safetensors")
    return folder


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
