"""`kwaainet model`: what is added is there, is what it says, and is gone when removed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf import GGMLQuantizationType as Kind

import relay_server.commands.model_add as model_add
from build.shards.builder import Built
from build.shards.builder import build as real_build
from build.shards.source import CheckpointError, Source
from pyodide_node.errors import ConfigError, ManifestError
from pyodide_node.model.manifest import Manifest, decode_manifest
from relay_server import Relay, RelaySettings
from relay_server.commands.model_add import add
from relay_server.commands.model_shelf import list_models, remove, show, verify
from relay_server.library import Library, plain_name
from relay_server.settings import default_models
from tests.build.families import write_family
from tests.build.gguf_files import write_gguf
from tests.relay_server.http import get
from tests.relay_server.test_cli import said

Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_family(tmp_path_factory.mktemp("checkpoints") / "qwen3-tiny", "qwen3")


@pytest.fixture(autouse=True)
def identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The models' signer is not this machine's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def manifest_of(models: Path, name: str) -> Manifest:
    return decode_manifest((models / name / "manifest.json").read_bytes())


async def test_what_is_added_is_offered_by_a_relay(
    checkpoint: Path, models: Path, capsys: Output
) -> None:
    await asyncio.to_thread(add, checkpoint, bits=8, models=models)
    told = capsys.readouterr().err
    assert "qwen3, 6 blocks of width 64" in told
    assert "from safetensors F16 to weights of 8 bits" in told
    assert "added qwen3-tiny" in told
    assert "kwaainet demo --model qwen3-tiny" in told
    assert manifest_of(models, "qwen3-tiny").bits == 8
    async with Relay(RelaySettings(port=0, stun=False, models=models)) as relay:
        index = json.loads((await get(relay.url, "/models/index.json")).body)
    assert [model["name"] for model in index["models"]] == ["qwen3-tiny"]
    assert index["models"][0]["signed"]["publisher"].startswith("did:key:z6Mk")


def test_adding_the_same_again_does_nothing(checkpoint: Path, models: Path, capsys: Output) -> None:
    add(checkpoint, name="one", bits=4, models=models)
    before = {path: path.stat().st_mtime_ns for path in models.rglob("*")}
    capsys.readouterr()
    add(checkpoint, name="one", bits=4, models=models)
    assert "already there" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in models.rglob("*")} == before


def test_another_model_takes_a_name_only_when_told(checkpoint: Path, models: Path) -> None:
    add(checkpoint, name="one", bits=4, models=models)
    with pytest.raises(ConfigError, match="--replace it, or choose another --name"):
        add(checkpoint, name="one", bits=16, models=models)
    assert manifest_of(models, "one").bits == 4
    add(checkpoint, name="one", bits=16, replace=True, models=models)
    assert manifest_of(models, "one").bits == 16


class Interrupted:
    """The builder, with Ctrl-C pressed when a step begins."""

    def __init__(self, at: str) -> None:
        self.at = at
        self.steps: list[str] = []

    def __call__(self, source: Source, out: Path, name: str, license: str | None,
                 tell: Callable[[str, int, int], None], *rest: Any) -> Built:  # fmt: skip
        def told(what: str, done: int, of: int) -> None:
            self.steps.append(what)
            if what == self.at:
                raise KeyboardInterrupt
            tell(what, done, of)

        return real_build(source, out, name, license, told, *rest)


def test_ctrl_c_leaves_what_the_next_run_goes_on_from(
    checkpoint: Path, models: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_add, "build", Interrupted("layer 4 of 6"))
    with pytest.raises(SystemExit) as stopped:
        add(checkpoint, name="one", bits=4, models=models)
    assert stopped.value.code == 130
    assert "run the same command again" in capsys.readouterr().err
    list_models(models=models)
    assert "not finished" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="not finished"):
        show("one", models=models)
    blobs = models / "one" / "blobs"
    kept = {path.name: path.stat().st_mtime_ns for path in blobs.iterdir()}
    assert len(kept) >= 3
    monkeypatch.setattr(model_add, "build", real_build)
    add(checkpoint, name="one", bits=4, models=models)
    assert {name: (blobs / name).stat().st_mtime_ns for name in kept} == kept
    verify("one", models=models)


def test_a_gguf_tells_what_becomes_of_its_weights(
    checkpoint: Path, models: Path, tmp_path: Path, capsys: Output
) -> None:
    path = write_gguf(checkpoint, tmp_path / "Tiny v1.gguf", "qwen3", Kind.Q4_0)
    add(path, models=models)
    assert "from GGUF Q4_0 to weights of 4 bits, without loss" in capsys.readouterr().err
    assert manifest_of(models, "Tiny-v1").bits == 4
    wide = write_family(tmp_path / "wide", "qwen3", scale=4)
    k_quants = write_gguf(wide, tmp_path / "wide.gguf", "qwen3", Kind.Q4_K)
    add(k_quants, models=models)
    told = capsys.readouterr().err
    assert "to weights of 8 bits, Q4_K rounded anew (relative error 0.5%)" in told
    assert "--bits 4 takes half the memory" in told


def test_a_licence_is_wanted(models: Path, tmp_path: Path) -> None:
    folder = write_family(tmp_path / "unlicensed", "qwen2")
    (folder / "README.md").unlink()
    with pytest.raises(CheckpointError, match="--license"):
        add(folder, models=models)
    add(folder, license="0BSD", models=models)
    assert manifest_of(models, "unlicensed").license == "0BSD"


@pytest.mark.parametrize("name", ["../up", "", ".hidden", "a/b", "a" * 101, "a b", "a\0", "-x"])
def test_a_name_is_no_path(checkpoint: Path, models: Path, name: str) -> None:
    for command in (show, verify):
        with pytest.raises(ConfigError, match="cannot be a model's name"):
            command(name, models=models)
    with pytest.raises(ConfigError, match="cannot be a model's name"):
        remove(name, yes=True, models=models)
    if name:
        with pytest.raises(ConfigError, match="cannot be a model's name"):
            add(checkpoint, name=name, models=models)
    assert not models.exists()


def test_the_hubs_cache_names_a_model_by_its_repository(tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "models--some-one--Tiny-2" / "snapshots" / "0123456789abcdef"
    add(write_family(folder, "qwen2"), models=models)
    assert Library(models).names() == ["Tiny-2"]
    kept = write_gguf(folder, tmp_path / "0123456789", "qwen2", Kind.F16)
    (folder / "Tiny-2-F16.gguf").symlink_to(kept)
    add(folder / "Tiny-2-F16.gguf", models=models)
    assert Library(models).names() == ["Tiny-2", "Tiny-2-F16"]
    assert plain_name("..a b/c..") == "a-b-c"


def test_show_tells_what_a_model_is(checkpoint: Path, models: Path, capsys: Output) -> None:
    add(checkpoint, name="one", bits=4, context=100, models=models)
    capsys.readouterr()
    show("one", models=models)
    out = capsys.readouterr().out
    for word in ("qwen3", "6, width 64, 2 kv heads of 32", "100 positions", "4 of a weight", "mit",
                 "gpu-fp16, gpu-fp32, wasm-expanded", "chat template       yes", "top_p 0.9",
                 "bafkrei", manifest_of(models, "one").model_id):  # fmt: skip
        assert word in out
    list_models(models=models)
    assert "one" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"no model 'two' .*\(one\)"):
        show("two", models=models)


def test_verify_finds_every_file_that_is_off(
    checkpoint: Path, models: Path, capsys: Output
) -> None:
    wide = write_family(models.parent / "wide", "qwen3", scale=4)
    add(wide, name="one", bits=32, models=models)
    verify("one", models=models)
    manifest, blobs = manifest_of(models, "one"), models / "one" / "blobs"
    capsys.readouterr()
    layers = manifest.layers
    (blobs / layers[0].sha256).unlink()
    with (blobs / layers[1].sha256).open("ab") as file:
        file.write(b"more")
    with (blobs / layers[2].sha256).open("r+b") as file:
        file.seek((1 << 20) + 5)
        file.write(b"\xff\xff\xff\xff")
    assert layers[3].dag is not None
    (blobs / layers[3].dag).write_bytes(b"no list of pieces")
    with pytest.raises(SystemExit) as stopped:
        verify("one", models=models)
    assert stopped.value.code == 1
    out = capsys.readouterr().out
    assert "layer 0 " in out
    assert f"{layers[1].bytes + 4} bytes instead of {layers[1].bytes}" in out
    assert "from byte 1048576 on" in out
    assert "list of the file's pieces" in out
    assert out.count("✗") == 4


def test_a_manifest_that_is_off_is_said_so(checkpoint: Path, models: Path, capsys: Output) -> None:
    add(checkpoint, name="one", bits=4, models=models)
    path = models / "one" / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"blocks":6', b'"blocks":7'))
    with pytest.raises(ManifestError, match="layer files"):
        verify("one", models=models)
    capsys.readouterr()
    list_models(models=models)
    assert "broken" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="--replace"):
        add(checkpoint, name="one", bits=8, models=models)
    add(checkpoint, name="one", bits=4, models=models)
    verify("one", models=models)


def test_remove_takes_the_files_and_nothing_else(
    checkpoint: Path, models: Path, tmp_path: Path, capsys: Output
) -> None:
    add(checkpoint, name="one", bits=4, models=models)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("kept")
    (models / "linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="say --yes"):
        remove("one", models=models)
    remove("one", yes=True, models=models)
    remove("linked", yes=True, models=models)
    assert list(models.iterdir()) == []
    assert (tmp_path / "elsewhere" / "file").read_text() == "kept"
    with pytest.raises(ConfigError, match="no model 'one'"):
        remove("one", yes=True, models=models)
    list_models(models=models)
    assert "add one: kwaainet model add PATH" in capsys.readouterr().out


def test_a_private_model_is_locked_and_never_lies_open(
    checkpoint: Path, models: Path, tmp_path: Path, capsys: Output
) -> None:
    add(checkpoint, name="mine", bits=4, private=True, models=models, state=tmp_path / "state")
    manifest = manifest_of(models, "mine")
    assert manifest.private is not None
    assert sorted(path.name for path in models.iterdir()) == ["mine"]
    assert "kwaainet model grant mine" in capsys.readouterr().err
    verify("mine", models=models)
    show("mine", models=models)
    assert "private" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="remove it first"):
        add(checkpoint, name="mine", private=True, models=models, state=tmp_path / "state")


def test_a_model_that_came_along_keeps_its_place(checkpoint: Path, models: Path) -> None:
    models.mkdir()
    (models / "one").symlink_to(models.parent)
    with pytest.raises(ConfigError, match="came along"):
        add(checkpoint, name="one", models=models)


def test_models_lie_in_the_checkout_or_with_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = Path(__file__).parents[2]
    assert default_models() == checkout / "dist" / "models"
    installed = tmp_path / "site-packages" / "relay_server"
    (installed / "models" / "tiny").mkdir(parents=True)
    monkeypatch.setattr("relay_server.settings.__file__", str(installed / "settings.py"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    home = default_models()
    assert home == tmp_path / "data" / "kwaainet" / "models"
    assert (home / "tiny").resolve() == installed / "models" / "tiny"
    moved = tmp_path / "upgraded" / "relay_server"
    (installed.parent).rename(tmp_path / "upgraded")
    monkeypatch.setattr("relay_server.settings.__file__", str(moved / "settings.py"))
    assert (default_models() / "tiny").resolve() == moved / "models" / "tiny"


async def test_it_is_a_command(models: Path, tmp_path: Path) -> None:
    code, out, _ = await said("model", "--help")
    assert code == 0
    for command in ("add", "list", "show", "verify", "remove", "split", "grant", "revoke"):
        assert command in out
    code, _, err = await said("model", "add", str(tmp_path), "--models", str(models))
    assert code == 1
    assert "config.json" in err
    assert "Traceback" not in err
    code, _, err = await said("model", "add", str(tmp_path), "--bits", "5")
    assert code == 2
    assert "Traceback" not in err
