"""A GGUF file says what the checkpoint says that it was made of."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from build.shards.gguf import best_bits
from build.shards.gguf_tokenizer import PATTERNS
from build.shards.quantise import dequantise, quantise
from build.shards.rope import rotary_tables
from build.shards.source import CheckpointError, Source, open_source, tensor_shapes
from pyodide_node.model.manifest import GenerationDefaults
from tests.build.families import FAMILIES, golden, write_family
from tests.build.gguf_files import quantised, write_gguf

NAMES = sorted(FAMILIES)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {name: write_family(root / name, name) for name in NAMES}


@pytest.fixture(scope="module")
def files(
    folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, Kind], Path]:
    root = tmp_path_factory.mktemp("gguf")
    return {
        (name, kind): write_gguf(folders[name], root / f"{name}-{kind.name}.gguf", name, kind)
        for name in NAMES
        for kind in (Kind.F16, Kind.Q8_0, Kind.Q4_0)
    }


Files = dict[tuple[str, Kind], Path]


@pytest.mark.parametrize("name", NAMES)
def test_f16_holds_the_checkpoints_own_tensors(
    folders: dict[str, Path], files: Files, name: str
) -> None:
    folder, file = open_source(folders[name]), open_source(files[name, Kind.F16])
    for tensor, dims in tensor_shapes(folder.shape).items():
        assert np.array_equal(file.tensor(tensor, *dims), folder.tensor(tensor, *dims)), tensor
        # Rows come right also where llama.cpp has them in another order.
        assert np.array_equal(file.rows(tensor, 3, 13), folder.rows(tensor, 3, 13)), tensor
    assert file.quantised("model.layers.0.mlp.up_proj.weight", 4, 0, 4) is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("kind", "bits"), [(Kind.Q4_0, 4), (Kind.Q8_0, 8)])
def test_blocks_are_repacked_without_loss(files: Files, name: str, kind: Kind, bits: int) -> None:
    file = open_source(files[name, kind])
    assert (file.bits, file.format) == (bits, f"GGUF {kind.name}")
    for tensor, dims in tensor_shapes(file.shape).items():
        if len(dims) == 2:
            blocks = file.quantised(tensor, bits, 5, dims[0])
            assert blocks is not None, tensor
            assert blocks.bits == bits
            assert np.array_equal(dequantise(blocks), file.rows(tensor, 5, dims[0])), tensor
            assert file.quantised(tensor, 12 - bits, 5, dims[0]) is None


@pytest.mark.parametrize("name", NAMES)
def test_sizes_and_papers_are_those_of_the_checkpoint(
    folders: dict[str, Path], files: Files, name: str
) -> None:
    folder, file = open_source(folders[name]), open_source(files[name, Kind.F16])
    for field in ("blocks", "heads", "kv_heads", "head_dim", "vocab_size", "qkv_bias", "qk_norm",
                  "tied", "hidden_size", "intermediate_size", "rope_theta"):  # fmt: skip
        assert getattr(file.shape, field) == getattr(folder.shape, field), field
    assert file.shape.rms_eps == pytest.approx(folder.shape.rms_eps)
    # Mistral's files are of the architecture llama and do not tell their window.
    if name != "mistral":
        assert file.shape.architecture == folder.shape.architecture
        assert file.shape.context_length == folder.shape.context_length
    assert (file.bos_id, file.license) == (folder.bos_id, folder.license)
    assert set(folder.eos_ids) <= set(file.eos_ids)
    assert file.chat is not None
    assert folder.chat is not None
    assert file.chat.template == folder.chat.template


@pytest.mark.parametrize("name", ["llama3", "llama3-tied"])
def test_the_stretched_rope_is_llama3s(folders: dict[str, Path], files: Files, name: str) -> None:
    one, other = open_source(folders[name]).shape, open_source(files[name, Kind.F16]).shape
    assert one.rope_scaling is not None
    assert other.rope_scaling is not None
    for left, right in zip(
        rotary_tables(256, one.head_dim, one.rope_theta, one.rope_scaling),
        rotary_tables(256, other.head_dim, other.rope_theta, other.rope_scaling),
        strict=True,
    ):
        assert np.allclose(left, right, atol=3e-5)


TEXTS = st.text(
    st.characters(exclude_categories=("Cs",))
    | st.sampled_from("  \t\n\r'sdtrevml0123456789 ABcd éèß 東京 नमस्ते мир 🙂"),
    max_size=60,
)


@pytest.fixture(scope="module")
def tokenizers(folders: dict[str, Path], files: Files) -> dict[str, tuple[Tokenizer, Tokenizer]]:
    def read(source: Source) -> Tokenizer:
        return Tokenizer.from_str(source.tokenizer().decode())

    return {
        name: (read(open_source(folders[name])), read(open_source(files[name, Kind.F16])))
        for name in NAMES
    }


@given(text=TEXTS)
def test_the_tokenizer_gives_the_ids_of_the_checkpoints_own(
    tokenizers: dict[str, tuple[Tokenizer, Tokenizer]], text: str
) -> None:
    for name, (own, made) in tokenizers.items():
        ids = own.encode(text).ids
        assert made.encode(text).ids == ids, name
        assert made.decode(ids) == own.decode(ids), name


def test_special_tokens_are_found_in_text(
    tokenizers: dict[str, tuple[Tokenizer, Tokenizer]],
) -> None:
    for name, (own, made) in tokenizers.items():
        for token in own.get_added_tokens_decoder().values():
            text = f"one {token.content}two"
            assert made.encode(text).ids == own.encode(text).ids, name
        assert made.encode(golden(name).prompt).ids == golden(name).prompt_ids


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("qwen2", {"tokenizer.ggml.pre": "jais"}, "'jais'.*not supported; these are: llama-bpe"),
        ("qwen2", {"tokenizer.ggml.pre": None}, "tokenizer.ggml.pre"),
        ("qwen2", {"tokenizer.ggml.model": "bert"}, "'bert' is not supported; these are: gpt2"),
        ("qwen2", {"tokenizer.ggml.tokens": ["a", "b"]}, "the metadata say"),
        ("qwen2", {"tokenizer.ggml.token_type": [1, 1]}, "512 tokens of 2 types"),
        ("qwen2", {"tokenizer.ggml.merges": ["abc"]}, "no merge"),
        ("qwen2", {"tokenizer.ggml.merges": ["abc xyz"]}, "tokenizer is broken"),
        ("qwen2", {"tokenizer.ggml.eos_token_id": 512}, "outside the vocabulary"),
        ("mistral", {"tokenizer.ggml.scores": None}, "0 scores of 512 tokens"),
        ("mistral", {"tokenizer.ggml.unknown_token_id": 999}, "unknown token 999"),
        ("llama3", {"llama.rope.scaling.type": "yarn"}, "rope scaling 'yarn'"),
        ("llama3", {"llama.expert_count": 8}, "mixtures of experts"),
        ("llama3", {"llama.block_count": 7}, "no tensor blk.6"),
        ("llama3", {"llama.block_count": 2**31}, "blocks is"),
        ("llama3", {"llama.embedding_length": 96}, "the metadata say"),
        ("llama3", {"llama.attention.head_count": 0}, "0 heads"),
        ("llama3", {"llama.attention.head_count": "4"}, "str, not int"),
        ("llama3", {"llama.attention.key_length": 32}, "differs from the size of a head"),
        ("llama3", {"llama.context_length": None}, "no llama.context_length"),
        ("llama3", {"split.count": 3}, "of 3 parts, and not named as one of them"),
        ("llama3", {"general.sampling.top_p": 3.0}, "general.sampling"),
        ("llama3", {"tokenizer.chat_template": "x" * 70000}, "chat template"),
    ],
)
def test_says_what_it_cannot_take(
    folders: dict[str, Path], tmp_path: Path, name: str, changes: dict[str, object], says: str
) -> None:
    path = write_gguf(folders[name], tmp_path / "model.gguf", name, Kind.F16, **changes)
    with pytest.raises(CheckpointError, match=says):
        open_source(path)


def test_an_unsupported_architecture_is_named(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "gemma3")
    writer.add_uint32("gemma3.block_count", 1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match="'gemma3' is not supported; these are: llama"):
        open_source(tmp_path / "model.gguf")


def split_gguf(whole: Path, folder: Path, count: int) -> Path:
    """As llama-gguf-split: the first part has the metadata, every part some of the tensors."""
    reader = gguf.GGUFReader(whole)
    paths = [folder / f"tiny-{n + 1:05}-of-{count:05}.gguf" for n in range(count)]
    for number, path in enumerate(paths):
        writer = gguf.GGUFWriter(path, "qwen3")
        for key, value in ("no", number), ("count", count), ("tensors.count", len(reader.tensors)):
            writer.add_uint16(f"split.{key}", value)
        if number == 0:
            for field in reader.fields.values():
                if not field.name.startswith("GGUF.") and field.name != "general.architecture":
                    inner = field.types[1] if len(field.types) > 1 else None
                    writer.add_key_value(field.name, field.contents(), field.types[0], inner)
        for tensor in reader.tensors[number::count]:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return paths[0]


def test_a_file_in_parts_is_one(files: Files, tmp_path: Path) -> None:
    whole = open_source(files["qwen3", Kind.Q8_0])
    first = split_gguf(files["qwen3", Kind.Q8_0], tmp_path, 3)
    parts = open_source(first)
    assert parts.shape == whole.shape
    assert parts.tokenizer() == whole.tokenizer()
    for tensor, dims in tensor_shapes(whole.shape).items():
        assert np.array_equal(parts.tensor(tensor, *dims), whole.tensor(tensor, *dims)), tensor
    before = parts.digest()
    second = tmp_path / "tiny-00002-of-00003.gguf"
    with pytest.raises(CheckpointError, match=r"give tiny-00001-of-00003\.gguf"):
        open_source(second)
    third = second.with_name("tiny-00003-of-00003.gguf").read_bytes()
    kept = second.read_bytes()
    second.write_bytes(third)
    with pytest.raises(CheckpointError, match="part of another file"):
        open_source(first)
    second.write_bytes(kept[:-4] + bytes(4))
    assert open_source(first).digest() != before
    second.unlink()
    with pytest.raises(CheckpointError, match=r"no tiny-00002-of-00003\.gguf"):
        open_source(first)


def test_what_its_makers_sample_with(folders: dict[str, Path], tmp_path: Path) -> None:
    changes = {"general.sampling.temp": 0.5, "general.sampling.top_k": 20}
    path = write_gguf(folders["qwen3"], tmp_path / "model.gguf", "qwen3", Kind.F32, **changes)
    assert open_source(path).generation == GenerationDefaults(temperature=0.5, top_k=20)
    assert open_source(path, 40).shape.context_length == 40


@pytest.mark.parametrize(
    "kind",
    [Kind.F32, Kind.F16, Kind.BF16, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q8_0],
)
def test_every_type_is_read_as_the_formats_package_reads_it(
    folders: dict[str, Path], tmp_path: Path, kind: Kind
) -> None:
    folder = open_source(folders["llama3"])
    file = open_source(write_gguf(folders["llama3"], tmp_path / "a.gguf", "llama3", kind))
    assert file.bits == best_bits(kind)
    name, dims = "model.layers.1.self_attn.k_proj.weight", (32, 64)
    want = folder.tensor(name, *dims)
    if kind not in (Kind.F32, Kind.F16):
        want = gguf.quants.dequantize(gguf.quants.quantize(want, kind), kind)
    assert np.array_equal(file.tensor(name, *dims), want)


K_QUANTS = {
    # own error, then what 4 and 8 bits add to it; relative RMS, on normal weights
    Kind.Q4_K: (0.078, 0.076, 0.0053),
    Kind.Q5_K: (0.038, 0.082, 0.0053),
    Kind.Q6_K: (0.019, 0.083, 0.0053),
}


@pytest.mark.parametrize("kind", K_QUANTS)
def test_k_quants_keep_what_they_have_in_8_bits(tmp_path: Path, kind: Kind) -> None:
    folder = write_family(tmp_path / "checkpoint", "llama3", scale=4)
    file = open_source(write_gguf(folder, tmp_path / "model.gguf", "llama3", kind))
    assert (file.bits, file.format[:9]) == (8, f"GGUF {kind.name}")
    name, dims = "model.layers.2.mlp.gate_proj.weight", (512, 256)
    own = open_source(folder).tensor(name, *dims)
    want = gguf.quants.dequantize(quantised(own, kind), kind)
    got = file.tensor(name, *dims)
    assert np.array_equal(got, want)
    assert np.array_equal(file.rows(name, 7, 300), want[7:300])
    assert file.quantised(name, 8, 0, 1) is None

    def error(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.sqrt(((one - other) ** 2).mean() / (other**2).mean()))

    said = K_QUANTS[kind]
    assert error(got, own) == pytest.approx(said[0], rel=0.05)
    assert error(dequantise(quantise(got, 4)), got) == pytest.approx(said[1], rel=0.05)
    assert error(dequantise(quantise(got, 8)), got) == pytest.approx(said[2], rel=0.05)


def test_all_patterns_compile() -> None:
    for name, pattern in PATTERNS.items():
        assert pattern.regex is None or len(pattern.regex) > 20, name
