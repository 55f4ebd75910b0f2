"""Small random checkpoints of each family, as transformers loads them, and what it says to them.

    python -m tests.build.families --write

makes the golden ids again with transformers (`pip install -e .[train]`); the tests compare them
where it is installed.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.build.family_tokenizers import Papers, llama3, mistral, qwen

GOLDEN = Path(__file__).with_name("families.json")
ANSWER = 24
"""Greedy ids that are kept of each family."""

BLOCKS, HIDDEN, INTER, HEADS, KV, VOCAB, CONTEXT = 6, 64, 128, 4, 2, 512, 256

_ROPE_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}

PROMPTS = (
    "The river runs",
    "A letter from the sea",
    "Nobody knows why",
    "When the door closed,",
    "Seven birds over the house",
    "In the year 1984 there were",
    "She said it's raining",
    "Le café est fermé",
)


@dataclass(frozen=True)
class Family:
    """What its config.json says beyond the sizes, and what its tensors are."""

    config: dict[str, Any]
    papers: Papers
    head_dim: int = 16
    tied: bool = False
    bias: bool = False
    qk_norm: bool = False


@dataclass(frozen=True)
class Golden:
    """What transformers says greedily, in float32."""

    prompt: str
    prompt_ids: list[int]
    ids: list[int]
    margin: float
    """Logits between the chosen id and the next best, at the least."""


FAMILIES: dict[str, Family] = {
    "llama3": Family(
        {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "rope_theta": 10000.0,
            "rope_scaling": _ROPE_LLAMA3,
            "attention_bias": False,
            "mlp_bias": False,
        },
        llama3,
    ),
    "llama3-tied": Family(
        {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "rope_theta": 500000.0,
            "rope_scaling": _ROPE_LLAMA3,
        },
        llama3,
        tied=True,
    ),
    "qwen2": Family(
        {
            "model_type": "qwen2",
            "architectures": ["Qwen2ForCausalLM"],
            "rope_theta": 1000000.0,
            "sliding_window": 64,
            "use_sliding_window": False,
            "max_window_layers": BLOCKS,
        },
        qwen,
        tied=True,
        bias=True,
    ),
    "qwen3": Family(
        {
            "model_type": "qwen3",
            "architectures": ["Qwen3ForCausalLM"],
            "rope_theta": 1000000.0,
            "attention_bias": False,
        },
        qwen,
        head_dim=32,
        qk_norm=True,
    ),
    "mistral": Family(
        {
            "model_type": "mistral",
            "architectures": ["MistralForCausalLM"],
            "rope_theta": 10000.0,
            "sliding_window": 128,
        },
        mistral,
    ),
}


def write_family(folder: Path, name: str, scale: int = 1) -> Path:
    """Writes the checkpoint of this name, the same bytes every time; returns `folder`.

    `scale` multiplies its width: K-quants need rows of 256.
    """
    family = FAMILIES[name]
    folder.mkdir(parents=True, exist_ok=True)
    bos, eos = family.papers(folder)
    config = {
        "hidden_act": "silu",
        "hidden_size": HIDDEN * scale,
        "intermediate_size": INTER * scale,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV,
        "head_dim": family.head_dim * scale,
        "num_hidden_layers": BLOCKS,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "vocab_size": VOCAB,
        "tie_word_embeddings": family.tied,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "torch_dtype": "float16",
        **family.config,
    }
    generation = {"bos_token_id": bos, "eos_token_id": [eos], "do_sample": True, "top_p": 0.9}
    _json(folder / "config.json", config)
    _json(folder / "generation_config.json", generation)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n\nRandom weights, for tests.\n")
    save_file(_tensors(name, scale), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def golden(name: str) -> Golden:
    """What is committed for this family."""
    return Golden(**json.loads(GOLDEN.read_text(encoding="utf-8"))[name])


def _tensors(name: str, scale: int) -> dict[str, NDArray[np.float16]]:
    family = FAMILIES[name]
    draw = np.random.default_rng([ord(letter) for letter in name])

    def matrix(rows: int, columns: int, size: float = 1.5) -> NDArray[np.float16]:
        return (draw.standard_normal((rows, columns)) * size / columns**0.5).astype(np.float16)

    def vector(count: int, middle: float, size: float) -> NDArray[np.float16]:
        return (middle + draw.standard_normal(count) * size).astype(np.float16)

    hidden, inter, head_dim = HIDDEN * scale, INTER * scale, family.head_dim * scale
    queries, keys = HEADS * head_dim, KV * head_dim
    tensors = {
        "model.embed_tokens.weight": matrix(VOCAB, hidden, 4.0),
        "model.norm.weight": vector(hidden, 1.0, 0.1),
    }
    if not family.tied:
        tensors["lm_head.weight"] = matrix(VOCAB, hidden, 4.0)
    for layer in range(BLOCKS):
        at, attention = f"model.layers.{layer}", f"model.layers.{layer}.self_attn"
        tensors |= {
            f"{at}.input_layernorm.weight": vector(hidden, 1.0, 0.1),
            f"{at}.post_attention_layernorm.weight": vector(hidden, 1.0, 0.1),
            f"{attention}.q_proj.weight": matrix(queries, hidden),
            f"{attention}.k_proj.weight": matrix(keys, hidden),
            f"{attention}.v_proj.weight": matrix(keys, hidden),
            f"{attention}.o_proj.weight": matrix(hidden, queries),
            f"{at}.mlp.gate_proj.weight": matrix(inter, hidden),
            f"{at}.mlp.up_proj.weight": matrix(inter, hidden),
            f"{at}.mlp.down_proj.weight": matrix(hidden, inter),
        }
        if family.bias:
            for part, size in (("q", queries), ("k", keys), ("v", keys)):
                tensors[f"{attention}.{part}_proj.bias"] = vector(size, 0.0, 0.5)
        if family.qk_norm:
            for part in ("q", "k"):
                tensors[f"{attention}.{part}_norm.weight"] = vector(head_dim, 1.0, 0.2)
    return tensors


def _json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def ask_transformers(folder: Path, prompts: tuple[str, ...], **load: Any) -> Golden:
    """The greedy answer to the prompt that leaves least in doubt. Needs torch, transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", **load
    )
    best: Golden | None = None
    for prompt in prompts:
        prompt_ids = list(tokenizer(prompt)["input_ids"])
        out = model.generate(
            torch.tensor([prompt_ids]),
            attention_mask=torch.ones(1, len(prompt_ids)),
            do_sample=False,
            top_p=None,
            max_new_tokens=ANSWER,
            eos_token_id=-1,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
        ids = out.sequences[0, len(prompt_ids) :].tolist()
        top = torch.stack(out.logits)[:, 0].topk(2).values
        margin = float((top[:, 0] - top[:, 1]).min())
        if len(set(ids)) > ANSWER // 3 and (best is None or margin > best.margin):
            best = Golden(prompt, prompt_ids, ids, round(margin, 3))
    assert best is not None, "greedy answers that repeat themselves: draw other weights"
    return best


def main() -> None:
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"write {GOLDEN.name}")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in FAMILIES:
            said = ask_transformers(write_family(Path(folder) / name, name), PROMPTS)
            found[name] = vars(said)
            print(name, said)
    if options.write:
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
