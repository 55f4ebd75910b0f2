"""`kwaainet model split` says beforehand what nodes then do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from build.shards.plan import plan_checkpoint
from pyodide_node.budget import MEGABYTE, RUNTIME_MEMORY
from pyodide_node.errors import ConfigError
from pyodide_node.model.footprint import Footprint
from pyodide_node.model.manifest import Manifest
from pyodide_node.model.plan import plan
from relay_server.commands.model_add import add
from relay_server.commands.model_split import NodeKind, split
from tests.build.families import write_family

Output = pytest.CaptureFixture[str]

LLAMA_8B = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
}


@pytest.fixture
def llama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The config of an 8B model, and nothing else."""
    monkeypatch.setenv("COLUMNS", "80")
    folder = tmp_path / "Llama-8B"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA_8B))
    return folder


@pytest.fixture
def manifest(llama: Path) -> Manifest:
    return plan_checkpoint(llama, 4, None)


def rows(out: str) -> list[list[str]]:
    """The cells of the table, its head first."""
    lines = [line.split() for line in out.splitlines()]
    return [cells for cells in lines if len(cells) in (8, 9)]


def test_a_cap_holds_what_a_node_of_that_cap_takes(
    llama: Path, manifest: Manifest, capsys: Output
) -> None:
    split(str(llama), memory=(2048,), engine=("webgpu", "native"))
    head, tab, native = rows(capsys.readouterr().out)[:3]
    assert head[:4] == ["memory", "node", "engine", "blocks"]
    for row, kind, name in ((tab, "tab", "webgpu"), (native, "native", "onnxruntime")):
        chosen = plan(manifest, [name], kind, 2048 * MEGABYTE)  # type: ignore[list-item, arg-type]
        assert row[2:4] == [name, str(chosen.blocks)]
        assert row[7] == str(-(-32 // chosen.blocks))
        of = Footprint(manifest, name)  # type: ignore[arg-type]
        assert of.loading(0, chosen.blocks) <= chosen.free
        assert chosen.ends is not None
        assert of.serving(chosen.blocks + 1, chosen.ends.spare) > chosen.free


def test_a_tab_without_a_gpu_takes_the_form_that_does_most(llama: Path, capsys: Output) -> None:
    split(str(llama), memory=(1024, 4096), engine=("wasm",))
    small, large = rows(capsys.readouterr().out)[1:3]
    assert (small[2], small[3]) == ("–", "0")  # it asks; see below
    assert large[2] == "wasm-int8"


@pytest.mark.parametrize("node", ["webgpu", "webgpu-fp16", "wasm", "native"])
def test_the_least_memory_of_a_span_is_the_least(
    llama: Path, manifest: Manifest, capsys: Output, node: str
) -> None:
    split(str(llama), spans="0-8,30-32", engine=(node,))  # type: ignore[arg-type]
    out = capsys.readouterr().out
    found = rows(out)[1:3]
    assert [row[0] for row in found] == ["0-8", "30-32"]
    assert "in no span: blocks 8-30" in out
    for row, blocks in zip(found, (8, 2), strict=True):
        cap = int(row[-1])
        capsys.readouterr()
        split(str(llama), memory=(cap, cap - 1), engine=(node,))  # type: ignore[arg-type]
        enough, short = rows(capsys.readouterr().out)[1:3]
        assert int(enough[3]) >= blocks > int(short[3])


def test_a_span_that_no_memory_is_enough_for_is_said_so(llama: Path, capsys: Output) -> None:
    """A WASM engine's memory ends at 4 GB, whatever the cap."""
    split(str(llama), spans="0-32", engine=("wasm", "native"))
    wasm, native = rows(capsys.readouterr().out)[1:3]
    assert (wasm[2], wasm[-1]) == ("–", "–")
    assert int(native[-1]) > 32 * 122


def test_a_tab_of_1_gb_takes_what_plain_arithmetic_says(
    llama: Path, manifest: Manifest, capsys: Output
) -> None:
    """Arithmetic of the manifest, done here by hand: rows of the embedding, the head with its
    scales widened, and blocks with a session over them."""
    split(str(llama), memory=(1024,), engine=("webgpu",))
    row = rows(capsys.readouterr().out)[1]
    blocks = int(row[3])
    each = manifest.span_bytes(0, 1, "gpu-fp32")
    kv = 2 * 4 * 8 * 128 * 4096
    ends = 16 * MEGABYTE + manifest.vocab_size * 4096 * (1 / 2 + 4 / 32)
    free = 1024 * MEGABYTE - RUNTIME_MEMORY["tab"] - ends
    assert blocks * (each + kv) <= free
    assert (blocks + 2) * (each + kv) > free
    assert row[7] == str(-(-32 // blocks))


@pytest.mark.parametrize("node", ["webgpu", "webgpu-fp16", "wasm", "native"])
def test_every_node_of_1_gb_asks_a_vocabulary_of_128k(
    llama: Path, manifest: Manifest, capsys: Output, node: NodeKind
) -> None:
    assert manifest.vocab_size == 128256
    split(str(llama), memory=(1024, 512), engine=(node,))
    out = capsys.readouterr().out
    enough, short = rows(out)[1:3]
    assert enough[-1].endswith("*")
    assert short[-1] == "no"
    assert "rows of the embedding read from storage" in " ".join(out.split())


def test_what_is_added_is_planned_by_its_own_sizes(tmp_path: Path, capsys: Output) -> None:
    models = tmp_path / "models"
    checkpoint = write_family(tmp_path / "tiny", "qwen3")
    split(str(checkpoint), bits=8, memory=(1024,), models=models)
    before = capsys.readouterr().out
    add(checkpoint, bits=8, models=models)
    capsys.readouterr()
    split("tiny", memory=(1024,), models=models)
    assert capsys.readouterr().out == before
    with pytest.raises(ConfigError, match="is added already"):
        split("tiny", bits=4, models=models)


@pytest.mark.parametrize(
    "spans", ["", "8", "0-0", "4-2", "0-33", "0-8,", "a-b", "0 - 8", "-1-4", "9" * 5000 + "-1"]
)
def test_spans_that_are_none_are_said_so(llama: Path, spans: str) -> None:
    with pytest.raises(ConfigError, match="--spans"):
        split(str(llama), spans=spans)


def test_what_cannot_be_planned_is_said_so(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model 'absent'"):
        split("absent", models=tmp_path)
    for megabytes in (0, -5, 1 << 40):
        with pytest.raises(ConfigError, match="megabytes"):
            split(str(llama), memory=(megabytes,))
    with pytest.raises(ConfigError, match="--context"):
        split(str(llama), context=0)
