"""Every family's checkpoint says, as shards, what transformers says of it."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from build.shards.source import open_source
from tests.build.families import FAMILIES, PROMPTS, ask_transformers, golden, write_family

NAMES = sorted(FAMILIES)
TRANSFORMERS = find_spec("torch") is not None and find_spec("transformers") is not None

needs_transformers = pytest.mark.skipif(
    not TRANSFORMERS, reason="transformers is not installed: pip install -e .[train]"
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {name: write_family(root / name, name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_family_is_written_the_same_every_time(
    folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    again = write_family(tmp_path, name)
    for path in sorted(folders[name].iterdir()):
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


@pytest.mark.parametrize("name", NAMES)
def test_the_prompt_has_the_ids_of_transformers(folders: dict[str, Path], name: str) -> None:
    source, said = open_source(folders[name]), golden(name)
    tokenizer = Tokenizer.from_str(source.tokenizer().decode())
    bos = [] if source.bos_id is None else [source.bos_id]
    plain = tokenizer.encode(said.prompt, add_special_tokens=False).ids
    assert bos + plain == said.prompt_ids


@pytest.mark.parametrize("name", NAMES)
def test_the_answers_tell_models_apart(name: str) -> None:
    said = golden(name)
    assert len(set(said.ids)) > len(said.ids) // 3
    assert said.margin > 0.05
    digest = hashlib.sha256(str(said.ids).encode()).hexdigest()
    others = [hashlib.sha256(str(golden(n).ids).encode()).hexdigest() for n in NAMES if n != name]
    assert digest not in others


@needs_transformers
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("default")
def test_transformers_says_what_is_committed(folders: dict[str, Path], name: str) -> None:
    assert golden(name).prompt in PROMPTS
    said = ask_transformers(folders[name], (golden(name).prompt,))
    assert (said.prompt_ids, said.ids) == (golden(name).prompt_ids, golden(name).ids)
