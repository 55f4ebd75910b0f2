"""The model that ships: its papers are in order, and its shards say what the manifest says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from build.shards.builder import build
from build.shards.huggingface import Checkpoint
from pyodide_node.model.manifest import Manifest
from tests.build.swarm import Chain, Shards

FOLDER = Path(__file__).parents[2] / "build" / "model" / "kwaai-docs"
MOST_BYTES = 15_000_000


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("kwaai-docs")
    return folder, build(Checkpoint(FOLDER), folder, "kwaai-docs").manifest


def test_papers_are_there_and_the_whole_is_small() -> None:
    names = {path.name for path in FOLDER.iterdir()}
    assert {
        "LICENSE",
        "MODEL_CARD.md",
        "TRAINING_TEXT_LICENSES.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    } <= names
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= MOST_BYTES


def test_card_tells_the_sizes_of_the_config() -> None:
    card = (FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")
    config = json.loads((FOLDER / "config.json").read_bytes())
    for key in ("num_hidden_layers", "hidden_size", "vocab_size", "max_position_embeddings"):
        assert str(config[key]) in card, key
    for source in ("python3.11-doc", "postgresql-doc-15", "python-django-doc", "sqlite3-doc"):
        assert source in card
        assert source in (FOLDER / "TRAINING_TEXT_LICENSES.md").read_text(encoding="utf-8")


def test_tokenizer_has_the_ids_of_the_config() -> None:
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    config = json.loads((FOLDER / "config.json").read_bytes())
    assert tokenizer.get_vocab_size() == config["vocab_size"]
    assert tokenizer.token_to_id("<|bos|>") == config["bos_token_id"]
    assert tokenizer.token_to_id("<|eos|>") == config["eos_token_id"]
    text = "If the file does not exist, naïve readers see “nothing” — 42 times.\n"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


@pytest.mark.parametrize("cuts", [(0, 8), (0, 2, 5, 8)])
@pytest.mark.parametrize("variant", ["gpu-fp32", "wasm-expanded"])
def test_chain_reproduces_the_reference(
    built: tuple[Path, Manifest], variant: str, cuts: tuple[int, ...]
) -> None:
    folder, manifest = built
    chain = Chain(Shards(folder, manifest, variant), cuts)  # type: ignore[arg-type]
    assert chain.greedy(manifest.reference.prompt_ids, 32) == manifest.reference.ids
