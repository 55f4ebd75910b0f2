"""A folder as Hugging Face publishes it: what is read, and what is said of a folder that is off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from build.shards.builder import build
from build.shards.huggingface import Checkpoint
from build.shards.source import CheckpointError, open_source
from pyodide_node.model.manifest import Chat, GenerationDefaults
from tests.build.conftest import HIDDEN, write_checkpoint

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def edit(folder: Path, name: str, **changes: Any) -> Path:
    """Changes a JSON file; None takes a key away."""
    path = folder / name
    value = json.loads(path.read_bytes()) if path.exists() else {}
    value |= changes
    path.write_text(json.dumps({k: v for k, v in value.items() if v is not None}))
    return folder


def table(source: Checkpoint, name: str) -> np.ndarray:
    return source.tensor(name, source.shape.vocab_size, HIDDEN)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"model_type": "gpt2"},
            "'gpt2' is not supported; these are: llama, mistral, qwen2, qwen3",
        ),
        ({"model_type": "mixtral"}, "'mixtral'"),
        ({"model_type": "qwen3_moe"}, "'qwen3_moe'"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "ForCausalLM"),
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_scaling": {"type": "linear"}}, "rope_type='linear'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1.0}}, "rope_type='yarn'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "llama3 rope"),
        ({"hidden_size": 100}, "multiple of 32"),
        ({"hidden_size": 128}, "config.json says"),
        ({"num_hidden_layers": 9}, "no tensor"),
        ({"num_hidden_layers": 1 << 40}, "blocks"),
        ({"num_hidden_layers": -1}, "blocks"),
        ({"num_key_value_heads": 3}, "4 heads cannot share 3"),
        ({"num_key_value_heads": 0}, "kv_heads is 0"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"vocab_size": 10**30}, "vocab_size"),
        ({"vocab_size": 100}, "config.json says"),
        ({"rms_norm_eps": -1.0}, "rms_eps"),
        ({"rope_theta": "big"}, "rope_theta"),
        ({"hidden_size": "64"}, "hidden_size"),
        ({"tie_word_embeddings": False}, "does not tie it"),
        ({"eos_token_id": 1000}, "eos_token_id"),
        ({"model_type": "mistral", "sliding_window": 0}, "context_length"),
    ],
)
def test_says_what_it_cannot_take(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint", **changes)
    with pytest.raises(CheckpointError, match=says):
        Checkpoint(folder)


@pytest.mark.parametrize("name", ["hidden_size", "num_hidden_layers", "vocab_size", "model_type"])
def test_wants_every_size(tmp_path: Path, name: str) -> None:
    folder = edit(write_checkpoint(tmp_path), "config.json", **{name: None})
    with pytest.raises(CheckpointError, match=f"missing required field `{name}`"):
        Checkpoint(folder)


def test_wants_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        Checkpoint(tmp_path)
    (write_checkpoint(tmp_path) / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="safetensors"):
        Checkpoint(tmp_path)
    (write_checkpoint(tmp_path) / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="tokenizer"):
        Checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="nothing at"):
        open_source(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="neither a folder"):
        open_source(tmp_path / "config.json")


def test_reads_bfloat16_in_several_files_with_an_output_matrix(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint", tie_word_embeddings=False)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    wide = {name: value.astype(ml_dtypes.bfloat16) for name, value in tensors.items()}
    wide[HEAD] = wide[EMBED] * -1
    half = len(wide) // 2
    for number, part in enumerate((list(wide.items())[:half], list(wide.items())[half:])):
        save_file(dict(part), folder / f"model-{number}.safetensors")
    checkpoint = Checkpoint(folder)
    assert checkpoint.format == "safetensors BF16"
    assert np.array_equal(table(checkpoint, HEAD), -table(checkpoint, EMBED))
    assert np.array_equal(checkpoint.rows(HEAD, 7, 30), table(checkpoint, HEAD)[7:30])
    assert build(checkpoint, tmp_path / "out", "tiny").manifest.blocks == 8


def test_the_ends_are_tied_where_transformers_ties_them(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    assert Checkpoint(folder).shape.tied
    save_file(tensors | {HEAD: tensors[EMBED].copy()}, folder / "model.safetensors")
    assert Checkpoint(folder).shape.tied
    save_file(tensors | {HEAD: -tensors[EMBED]}, folder / "model.safetensors")
    assert not Checkpoint(folder).shape.tied


def test_reads_the_rope_of_newer_configs(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, rope_parameters={"rope_type": "default", "rope_theta": 7.0})
    assert Checkpoint(folder).shape.rope_theta == 7.0


@pytest.mark.parametrize(
    ("changes", "context"),
    [
        ({"model_type": "mistral", "sliding_window": 50}, 50),
        ({"model_type": "mistral", "sliding_window": None}, 96),
        ({"max_position_embeddings": 1 << 30}, 1 << 20),
    ],
)
def test_the_context_ends_where_attention_would_slide(
    tmp_path: Path, changes: dict[str, Any], context: int
) -> None:
    folder = write_checkpoint(tmp_path, **changes)
    assert Checkpoint(folder).shape.context_length == context
    assert Checkpoint(folder, 40).shape.context_length == 40


def test_reads_the_papers(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    plain = Checkpoint(folder)
    assert (plain.bos_id, plain.eos_ids, plain.license) == (0, [1], "mit")
    assert (plain.chat, plain.generation) == (None, None)
    before = plain.digest()
    edit(
        folder, "generation_config.json", do_sample=True, temperature=0.6, top_p=0.9,
        eos_token_id=[5, 1, 7],
    )  # fmt: skip
    edit(
        folder, "tokenizer_config.json", chat_template="{{ bos_token }}{{ messages }}",
        bos_token="<|bos|>", eos_token={"content": "<|eos|>", "lstrip": False}, pad_token=None,
        model_max_length=10, add_bos_token=False,
    )  # fmt: skip
    (folder / "MODEL_CARD.md").write_text("---\nlicense: other\nlicense_name: llama3\n---\n")
    full = Checkpoint(folder)
    assert full.generation == GenerationDefaults(temperature=0.6, top_p=0.9)
    assert full.eos_ids == [5, 1, 7]
    assert full.chat == Chat(
        template="{{ bos_token }}{{ messages }}",
        special_tokens={"bos_token": "<|bos|>", "eos_token": "<|eos|>"},
    )
    assert (full.bos_id, full.license) == (None, "llama3")
    assert full.digest() != before


def test_hashing_a_checkpoint_tells_how_far_it_is(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    size = sum((folder / name).stat().st_size for name in ("model.safetensors", "config.json"))
    told: list[tuple[int, int]] = []
    Checkpoint(folder).digest(lambda what, done, of: told.append((done, of)))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] >= size


def test_takes_the_template_named_default_and_a_file_before_it(tmp_path: Path) -> None:
    templates = [
        {"name": "tool_use", "template": "tools"},
        {"name": "default", "template": "plain"},
    ]
    folder = edit(write_checkpoint(tmp_path), "tokenizer_config.json", chat_template=templates)
    chat = Checkpoint(folder).chat
    assert chat is not None
    assert chat.template == "plain"
    (folder / "chat_template.jinja").write_text("from a file")
    chat = Checkpoint(folder).chat
    assert chat is not None
    assert chat.template == "from a file"


def test_a_model_that_is_not_sampled_from_is_greedy(tmp_path: Path) -> None:
    folder = edit(write_checkpoint(tmp_path), "generation_config.json", do_sample=False)
    assert Checkpoint(folder).generation == GenerationDefaults(temperature=0.0)
