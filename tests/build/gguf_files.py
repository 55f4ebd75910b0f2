"""GGUF files of the families' checkpoints, written by the format's own package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from tests.build import kquants
from tests.build.families import FAMILIES

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
PRE = {"llama3": "llama-bpe", "llama3-tied": "llama-bpe", "qwen2": "qwen2", "qwen3": "qwen2"}


def write_gguf(checkpoint: Path, path: Path, name: str, kind: Kind, **changes: Any) -> Path:
    """The family's checkpoint as one GGUF file, its matrices of the given type.

    What llama.cpp's convert_hf_to_gguf.py does; `changes` replace metadata (None: leave out).
    """
    config = json.loads((checkpoint / "config.json").read_bytes())
    family = FAMILIES[name]
    architecture = {"mistral": "llama"}.get(config["model_type"], config["model_type"])
    writer = gguf.GGUFWriter(path, architecture)
    values: dict[str, Any] = {
        "general.name": name,
        "general.license": "mit",
        "general.file_type": FILE_TYPES[kind],
        f"{architecture}.block_count": config["num_hidden_layers"],
        f"{architecture}.context_length": config["max_position_embeddings"],
        f"{architecture}.embedding_length": config["hidden_size"],
        f"{architecture}.feed_forward_length": config["intermediate_size"],
        f"{architecture}.attention.head_count": config["num_attention_heads"],
        f"{architecture}.attention.head_count_kv": config["num_key_value_heads"],
        f"{architecture}.attention.key_length": config["head_dim"],
        f"{architecture}.attention.value_length": config["head_dim"],
        f"{architecture}.attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        f"{architecture}.rope.freq_base": config["rope_theta"],
        **_tokenizer(checkpoint, name),
        **changes,
    }
    for key, value in values.items():
        _add(writer, key, value)
    if "rope_scaling" in config:
        writer.add_tensor("rope_freqs.weight", _factors(config))
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for tensor, value in load_file(checkpoint / "model.safetensors").items():
        part = tensor.split(".")[-2]
        if architecture == "llama" and part in heads:
            value = permute(value, heads[part])
        if value.ndim == 1:
            writer.add_tensor(gguf_name(tensor), value.astype(np.float32))
        else:
            rows = quantised(value.astype(np.float32), kind)
            writer.add_tensor(gguf_name(tensor), rows, raw_dtype=kind)
    assert family.tied == ("lm_head.weight" not in load_file(checkpoint / "model.safetensors"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


FILE_TYPES = {
    Kind.F32: 0, Kind.F16: 1, Kind.BF16: 32, Kind.Q4_0: 2, Kind.Q8_0: 7, Kind.Q4_1: 3,
    Kind.Q5_0: 8, Kind.Q5_1: 9, Kind.Q4_K: 15, Kind.Q5_K: 17, Kind.Q6_K: 18,
}  # fmt: skip


def quantised(rows: NDArray[np.float32], kind: Kind) -> NDArray[Any]:
    """f32[rows, columns] as the type has it; u8[rows, bytes] where it has blocks."""
    if kind in kquants.PACK:
        return kquants.quantise(rows, kind)
    return gguf.quants.quantize(rows, kind)


def gguf_name(name: str) -> str:
    """llama.cpp's name of a tensor."""
    stem, suffix = name.rsplit(".", 1)
    if stem.startswith("model.layers."):
        _, _, layer, rest = stem.split(".", 3)
        return f"blk.{layer}.{NAMES[rest]}.{suffix}"
    return f"{NAMES[stem]}.{suffix}"


def permute(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """As convert_hf_to_gguf.py's LlamaModel.permute."""
    return (
        rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
        .swapaxes(1, 2)
        .reshape(rows.shape)
    )


def _factors(config: dict[str, Any]) -> NDArray[np.float32]:
    """As convert_hf_to_gguf.py's generate_extra_tensors for llama3."""
    rope, dim = config["rope_scaling"], config["head_dim"]
    old = rope["original_max_position_embeddings"]
    low, high = old / rope["low_freq_factor"], old / rope["high_freq_factor"]
    factors = []
    for i in range(0, dim, 2):
        length = 2 * np.pi * config["rope_theta"] ** (i / dim)
        if length < high:
            factors.append(1.0)
        elif length > low:
            factors.append(rope["factor"])
        else:
            smooth = (old / length - rope["low_freq_factor"]) / (
                rope["high_freq_factor"] - rope["low_freq_factor"]
            )
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, np.float32)


def _tokenizer(checkpoint: Path, name: str) -> dict[str, Any]:
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    about = json.loads((checkpoint / "tokenizer_config.json").read_bytes())
    model = json.loads(tokenizer.to_str())["model"]
    size = json.loads((checkpoint / "config.json").read_bytes())["vocab_size"]
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    tokens, types, scores = [], [], []
    for number in range(size):
        text = tokenizer.id_to_token(number)
        kind = gguf.TokenType.NORMAL
        if text is None:
            text, kind = f"[PAD{number}]", gguf.TokenType.UNUSED
        elif text == "<unk>":
            kind = gguf.TokenType.UNKNOWN
        elif text in special:
            kind = gguf.TokenType.CONTROL
        elif len(text) == 6 and text.startswith("<0x"):
            kind = gguf.TokenType.BYTE
        tokens.append(text)
        types.append(int(kind))
        scores.append(-float(number - 259) if kind == gguf.TokenType.NORMAL else 0.0)
    special_ids = {
        f"tokenizer.ggml.{key}_token_id": tokenizer.token_to_id(text)
        for key, text in (("bos", _text(about, "bos")), ("eos", _text(about, "eos")))
        if text
    }
    values: dict[str, Any] = {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.chat_template": about["chat_template"],
        **special_ids,
    }
    if name in PRE:
        values |= {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": PRE[name],
            "tokenizer.ggml.merges": [" ".join(pair) for pair in model["merges"]],
        }
        if PRE[name] == "qwen2":
            values["tokenizer.ggml.add_bos_token"] = False
    else:
        values |= {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.pre": "default",
            "tokenizer.ggml.scores": scores,
            "tokenizer.ggml.unknown_token_id": 0,
            "tokenizer.ggml.add_bos_token": True,
        }
    return values


def _text(about: dict[str, Any], name: str) -> str | None:
    value = about.get(f"{name}_token")
    return value["content"] if isinstance(value, dict) else value


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
