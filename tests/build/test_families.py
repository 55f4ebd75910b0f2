"""Every family's checkpoint says, as shards, what transformers says of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from tokenizers import Tokenizer

from build.shards.builder import build
from build.shards.source import Bits, open_source
from pyodide_node.model.manifest import Manifest
from tests.build.families import ANSWER, FAMILIES, PROMPTS, ask_transformers, golden, write_family
from tests.build.gguf_files import write_gguf
from tests.build.swarm import Chain, Shards, whole_model

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


@pytest.fixture(scope="module")
def built(
    folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Bits], tuple[Path, Manifest]]:
    """Shards of a family in so many bits, built once."""

    @cache
    def make(name: str, bits: Bits) -> tuple[Path, Manifest]:
        out = tmp_path_factory.mktemp(f"{name}-{bits}")
        return out, build(open_source(folders[name]), out, name, bits=bits).manifest

    return make


Built = Callable[[str, Bits], tuple[Path, Manifest]]


@pytest.mark.parametrize("name", NAMES)
def test_32_bit_shards_say_what_transformers_says(built: Built, name: str) -> None:
    folder, manifest = built(name, 32)
    said = golden(name)
    assert whole_model(folder, manifest).greedy(said.prompt_ids, ANSWER)[0] == said.ids
    for variant, cuts in (("gpu-fp32", (0, 1, 4, 6)), ("wasm-expanded", (0, 3, 6))):
        chain = Chain(Shards(folder, manifest, variant), cuts)  # type: ignore[arg-type]
        assert chain.greedy(said.prompt_ids, ANSWER) == said.ids, variant


@pytest.mark.parametrize("name", NAMES)
def test_4_bit_pieces_say_what_the_unsplit_4_bit_model_says(built: Built, name: str) -> None:
    folder, manifest = built(name, 4)
    said = golden(name)
    whole = whole_model(folder, manifest).greedy(said.prompt_ids, ANSWER)[0]
    for variant, cuts in (("gpu-fp32", (0, 2, 5, 6)), ("wasm-expanded", (0, 3, 6))):
        chain = Chain(Shards(folder, manifest, variant), cuts)  # type: ignore[arg-type]
        assert chain.greedy(said.prompt_ids, ANSWER) == whole, variant


@pytest.mark.parametrize("name", NAMES)
def test_a_gguf_of_it_says_the_same(
    folders: dict[str, Path], built: Built, tmp_path: Path, name: str
) -> None:
    path = write_gguf(folders[name], tmp_path / "model.gguf", name, Kind.F16)
    manifest = build(open_source(path), tmp_path / "out", name, bits=32).manifest
    said = golden(name)
    chain = Chain(Shards(tmp_path / "out", manifest, "gpu-fp32"), (0, 3, 6))
    assert chain.greedy(said.prompt_ids, ANSWER) == said.ids
    # Weights of F16 are the checkpoint's own: so are the files made of them.
    assert [blob.sha256 for blob in manifest.layers] == [
        blob.sha256 for blob in built(name, 32)[1].layers
    ]


@pytest.mark.parametrize("name", NAMES)
def test_q4_0_is_served_as_it_is(folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    path = write_gguf(folders[name], tmp_path / "model.gguf", name, Kind.Q4_0)
    source = open_source(path)
    four = build(source, tmp_path / "four", name).manifest
    full = build(source, tmp_path / "full", name, bits=32).manifest
    assert four.bits == 4
    ids = golden(name).prompt_ids
    one = whole_model(tmp_path / "four", four).step(ids)
    other = whole_model(tmp_path / "full", full).step(ids)
    # Nothing is rounded twice; where the ends are 8-bit, Q4_0's steps are among theirs.
    assert np.abs(one - other).max() < 1e-3
    chain = Chain(Shards(tmp_path / "four", four, "wasm-expanded"), (0, 2, 6))
    whole = whole_model(tmp_path / "four", four).greedy(ids, ANSWER)[0]
    assert chain.greedy(ids, ANSWER) == whole


@needs_transformers
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("default")
def test_transformers_says_what_is_committed(folders: dict[str, Path], name: str) -> None:
    assert golden(name).prompt in PROMPTS
    said = ask_transformers(folders[name], (golden(name).prompt,))
    assert (said.prompt_ids, said.ids) == (golden(name).prompt_ids, golden(name).ids)


@needs_transformers
@pytest.mark.skipif(find_spec("accelerate") is None, reason="accelerate is not installed")
@pytest.mark.parametrize("name", ["llama3", "qwen2"])
@pytest.mark.filterwarnings("default")
def test_the_gguf_files_of_these_tests_are_read_so_by_transformers_too(
    folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    path = write_gguf(folders[name], tmp_path / "model.gguf", name, Kind.F32)
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32
    )
    source = open_source(path)
    compared = 0
    for tensor, value in model.state_dict().items():
        if source.has(tensor):
            assert np.array_equal(source.tensor(tensor, *value.shape), value.numpy()), tensor
            compared += 1
    assert compared >= 6 * 9
