"""Files from strangers: refused with a sentence, in little time and memory, and never run."""

from __future__ import annotations

import json
import os
import pickle
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from build.shards.gguf_header import MAX_HEADER_BYTES, read_header
from build.shards.huggingface import Checkpoint
from build.shards.source import CheckpointError, open_source, tensor_shapes
from tests.build.conftest import write_checkpoint
from tests.build.families import write_family
from tests.build.gguf_files import write_gguf

SECONDS, MEGABYTES = 5.0, 80
"""What reading one small hostile file may take, at the most."""

EMBED = "model.embed_tokens.weight"


@contextmanager
def bounded() -> Iterator[None]:
    tracemalloc.start()
    begun = time.monotonic()
    try:
        yield
    finally:
        spent, peak = time.monotonic() - begun, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert spent < SECONDS
    assert peak < MEGABYTES << 20


def refused(path: Path, says: str = ".") -> None:
    with bounded(), pytest.raises(CheckpointError, match=says):
        open_source(path)


def read_all(path: Path) -> None:
    """As a builder would: a broken file is refused, whenever that shows."""
    with bounded():
        try:
            source = open_source(path)
            for name, dims in tensor_shapes(source.shape).items():
                source.tensor(name, *dims)
                for bits in (4, 8):
                    if len(dims) == 2:
                        source.quantised(name, bits, 0, 1)
        except CheckpointError:
            pass


# Safetensors


def header_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def with_header(header: dict[str, Any] | bytes, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


Change = Callable[[dict[str, Any], bytes], bytes]


def claim(**fields: Any) -> Change:
    def change(header: dict[str, Any], body: bytes) -> bytes:
        header[EMBED] |= fields
        return with_header(header, body)

    return change


SAFETENSORS: dict[str, Change] = {
    "no header": lambda header, body: b"",
    "half a length": lambda header, body: b"\x10\0\0",
    "a length beyond the file": lambda header, body: struct.pack("<Q", 10**6) + b"{}",
    "a length beyond all memory": lambda header, body: struct.pack("<Q", 2**63) + b"{}",
    "a header that is not JSON": lambda header, body: with_header(b"\xff" * 64, body),
    "nested without end": lambda header, body: with_header(b'{"a":' + b"[" * 10**6, body),
    "a list": lambda header, body: with_header(b"[1, 2]", body),
    "cut short": lambda header, body: with_header(header, body[:-100]),
    "longer than it says": lambda header, body: with_header(header, body + bytes(100)),
    "a shape beyond the file": claim(shape=[2**40, 64]),
    "a shape beyond 64 bits": claim(shape=[2**40, 2**40]),
    "a negative shape": claim(shape=[-1, 64]),
    "offsets that overlap": claim(data_offsets=[0, 16]),
    "offsets beyond the file": claim(data_offsets=[0, 2**50]),
    "offsets backwards": claim(data_offsets=[64, 0]),
    "an unknown type": claim(dtype="F999"),
}


@pytest.mark.parametrize("what", SAFETENSORS)
def test_a_broken_safetensors_header_is_refused(tmp_path: Path, what: str) -> None:
    path = write_checkpoint(tmp_path) / "model.safetensors"
    path.write_bytes(SAFETENSORS[what](*header_of(path.read_bytes())))
    refused(tmp_path, "model.safetensors")


def test_a_tensor_that_is_missing_or_of_another_shape_is_named(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path) / "model.safetensors"
    tensors = load_file(path)
    name = "model.layers.3.mlp.up_proj.weight"
    save_file({k: v for k, v in tensors.items() if k != name}, path)
    refused(tmp_path, name)
    save_file(tensors | {name: np.zeros((64, 96), np.float16)}, path)
    refused(tmp_path, rf"{name} is \(64, 96\), config.json says \(96, 64\)")
    save_file(tensors | {name: np.zeros((96, 64), np.int8)}, path)
    refused(tmp_path, f"{name} is I8; only F16, BF16 and F32")


def test_weights_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path) / "model.safetensors"
    tensors = load_file(path)
    tensors[EMBED][3, 5] = np.nan
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=EMBED):
        open_source(tmp_path).tensor(EMBED, 258, 64)


@pytest.mark.parametrize(
    "name",
    [
        "../secret.safetensors", "/etc/passwd", "/tmp/x.safetensors", "a/b.safetensors",
        "..\\secret.safetensors", "model.bin", "x.safetensors\0.bin", "", ".safetensors",
        "\u202esrotnesetafes.safetensors",
    ],
)  # fmt: skip
def test_an_index_names_only_files_of_its_folder(tmp_path: Path, name: str) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint")
    (folder / "model.safetensors").rename(tmp_path / "secret.safetensors")
    index = {"weight_map": dict.fromkeys([EMBED, "model.norm.weight"], name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint")
    (folder / "model.safetensors").rename(tmp_path / "elsewhere")
    (folder / "model.safetensors").symlink_to(tmp_path / "elsewhere")
    refused(folder, "outside its folder")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("model.safetensors")
    refused(folder)


def test_the_hubs_cache_is_a_folder_of_links(tmp_path: Path) -> None:
    model = tmp_path / "models--someone--tiny"
    folder = write_checkpoint(model / "snapshots" / "0123abcd")
    (model / "blobs").mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(model / "blobs" / str(number))
        path.symlink_to(f"../../blobs/{number}")
    assert open_source(folder).shape.blocks == 8


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        kept = (folder / name).read_bytes()
        (folder / name).unlink()
        os.mkfifo(folder / name)
        refused(folder, "not a regular file")
        (folder / name).unlink()
        (folder / name).write_bytes(kept)
    os.mkfifo(folder / "model.gguf")
    refused(folder / "model.gguf", "neither")


def test_files_as_big_as_the_world_are_not_read(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "README.md",
                 "generation_config.json", "model.safetensors.index.json"):  # fmt: skip
        path = folder / name
        kept = path.read_bytes() if path.exists() else None
        with path.open("wb") as file:
            file.truncate(1 << 40)  # sparse: it takes no disk
        if name == "README.md":
            (folder / "MODEL_CARD.md").unlink()
        refused(folder, "larger than")
        path.unlink()
        if kept is not None:
            path.write_bytes(kept)


class Bomb:
    """A pickle that runs code when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"])
def test_a_pickle_is_never_opened(tmp_path: Path, name: str) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    (folder / name).chmod(0)
    refused(folder, f"{name}: it may be a pickle.*never opened.*safetensors")
    refused(folder / name, "may be a pickle")
    assert not (tmp_path / "ran").exists()


def test_a_config_that_names_code_runs_none(tmp_path: Path) -> None:
    folder = write_checkpoint(
        tmp_path, auto_map={"AutoModelForCausalLM": "modeling.Evil"}, trust_remote_code=True
    )
    (folder / "modeling.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    assert open_source(folder).shape.blocks == 8
    assert not (tmp_path / "ran").exists()


# Anything at all


FUZZ = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_family(tmp_path_factory.mktemp("family"), "llama3")


@contextmanager
def replaced(path: Path, data: bytes) -> Iterator[None]:
    kept = path.read_bytes() if path.exists() else None
    path.write_bytes(data)
    try:
        yield
    finally:
        if kept is None:
            path.unlink()
        else:
            path.write_bytes(kept)


@FUZZ
@given(data=st.data())
def test_configs_of_any_values(folder: Path, data: st.DataObject) -> None:
    name = data.draw(
        st.sampled_from(["config.json", "generation_config.json", "tokenizer_config.json"])
    )
    value = json.loads((folder / name).read_bytes())
    keys = st.sampled_from([*sorted(value), "rope_parameters", "sliding_window", "chat_template"])
    huge = st.integers(-(2**70), 2**70)
    for key in data.draw(st.lists(keys, min_size=1, max_size=3)):
        value[key] = data.draw(JSON | huge | st.just(1e308))
    with replaced(folder / name, json.dumps(value).encode()):
        read_all(folder)


@FUZZ
@given(name=st.sampled_from(["config.json", "tokenizer.json", "generation_config.json",
                             "tokenizer_config.json", "model.safetensors.index.json"]),
       text=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()),
       )  # fmt: skip
def test_small_files_of_any_content(folder: Path, name: str, text: bytes) -> None:
    with replaced(folder / name, text):
        read_all(folder)


@FUZZ
@given(weight_map=st.dictionaries(st.sampled_from([EMBED, "x"]) | st.text(max_size=9),
                                  st.text(max_size=30) | st.just("model.safetensors")))  # fmt: skip
def test_an_index_of_any_names(folder: Path, weight_map: dict[str, str]) -> None:
    index = json.dumps({"weight_map": weight_map}).encode()
    with replaced(folder / "model.safetensors.index.json", index):
        read_all(folder)


def mutations(size: int) -> st.SearchStrategy[list[tuple[int, bytes]]]:
    """Where to write what; early bytes more often, for there the lengths are."""
    places = st.integers(0, min(size, 200)) | st.integers(0, size - 1)
    words = st.binary(min_size=1, max_size=9) | st.sampled_from(
        [b"\xff" * 8, b"\0" * 8, b"\xff" * 4, struct.pack("<Q", 2**63), struct.pack("<Q", 2**31)]
    )
    return st.lists(st.tuples(places, words), max_size=4)


def mutate(data: bytes, changes: list[tuple[int, bytes]], end: int | None) -> bytes:
    out = bytearray(data)
    for at, word in changes:
        out[at : at + len(word)] = word
    return bytes(out[:end])


@FUZZ
@given(data=st.data())
def test_safetensors_changed_anywhere(folder: Path, data: st.DataObject) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    size = 8 + struct.unpack("<Q", whole[:8])[0]
    changes = data.draw(mutations(size))
    end = data.draw(st.none() | st.integers(0, len(whole)))
    with replaced(path, mutate(whole, changes, end)):
        read_all(folder)


# GGUF


@pytest.fixture(scope="module")
def gguf_bytes(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    return write_gguf(folder, path, "llama3", Kind.Q4_0).read_bytes()


@settings(FUZZ, max_examples=200)
@given(data=st.data())
def test_gguf_changed_anywhere(gguf_bytes: bytes, tmp_path: Path, data: st.DataObject) -> None:
    head = 14_000  # metadata and tensor infos
    changes = data.draw(mutations(head) | mutations(len(gguf_bytes)))
    end = data.draw(st.none() | st.integers(0, len(gguf_bytes)))
    path = tmp_path / "model.gguf"
    path.write_bytes(mutate(gguf_bytes, changes, end))
    read_all(path)


def gguf(*parts: bytes | int, tensors: int = 0, keys: int = 1, version: int = 3) -> bytes:
    """A header by hand; whole numbers are u64."""
    head = b"GGUF" + struct.pack("<IQQ", version, tensors, keys)
    return head + b"".join(p if isinstance(p, bytes) else struct.pack("<Q", p) for p in parts)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def kind(number: int) -> bytes:
    return struct.pack("<I", number)


def tensor(name: str, dims: list[int], type_: int, offset: int) -> bytes:
    sizes = b"".join(struct.pack("<Q", dim) for dim in dims)
    return text(name) + struct.pack("<I", len(dims)) + sizes + struct.pack("<IQ", type_, offset)


STRING, ARRAY, UINT8 = 8, 9, 0

GGUF: dict[str, tuple[bytes, str]] = {
    "version 1": (gguf(version=1), "version 1"),
    "big-endian": (gguf(version=3 << 24), "big-endian"),
    "tensors without end": (gguf(tensors=2**63), "claims"),
    "keys without end": (gguf(keys=2**63), "claims"),
    "a key longer than memory": (gguf(2**62), "bytes"),
    "a text longer than memory": (gguf(text("k"), kind(STRING), 2**62), "bytes"),
    "a text beyond the file": (gguf(text("k"), kind(STRING), 10**6), "cut"),
    "bytes without end": (gguf(text("k"), kind(ARRAY), kind(UINT8), 2**62), "claims arrays"),
    "texts without end": (gguf(text("k"), kind(ARRAY), kind(STRING), 2**62), "claims arrays"),
    "bytes beyond the file": (gguf(text("k"), kind(ARRAY), kind(UINT8), 10**6), "cut"),
    "texts beyond the file": (gguf(text("k"), kind(ARRAY), kind(STRING), 10**6), "cut"),
    "arrays in arrays": (gguf(text("k"), (kind(ARRAY) + struct.pack("<Q", 1)) * 100), "array"),
    "a type unknown": (gguf(text("k"), kind(77), 0), "unknown type 77"),
    "a text that is none": (gguf(2, b"\xff\xff", kind(UINT8), b"\0"), "UTF-8"),
    "a key twice": (gguf((text("k") + kind(UINT8) + b"\0") * 2, keys=2), "twice"),
    "an alignment of 0": (gguf(text("general.alignment"), kind(4), bytes(4)), "alignment"),
    "an alignment of 3": (gguf(text("general.alignment"), kind(4), b"\3\0\0\0"), "alignment"),
    "dimensions beyond 64 bits": (
        gguf(tensor("t", [2**62, 2**62], 0, 0), tensors=1, keys=0), "outside the file"
    ),
    "a thousand dimensions": (
        gguf(tensor("t", [1] * 1000, 0, 0), tensors=1, keys=0), "1000 dimensions"
    ),
    "no dimensions": (gguf(tensor("t", [], 0, 0), tensors=1, keys=0), "0 dimensions"),
    "a dimension of 0": (gguf(tensor("t", [0, 8], 0, 0), tensors=1, keys=0), "whole blocks"),
    "half a block": (gguf(tensor("t", [48], 2, 0), bytes(64), tensors=1, keys=0), "whole blocks"),
    "weights of an unknown type": (
        gguf(tensor("t", [8], 250, 0), tensors=1, keys=0), "unknown type 250"
    ),
    "an offset beyond the file": (
        gguf(tensor("t", [8], 0, 2**40), tensors=1, keys=0), "outside the file"
    ),
    "an offset not aligned": (
        gguf(tensor("t", [8], 0, 5), bytes(128), tensors=1, keys=0), "outside the file"
    ),
    "tensors that overlap": (
        gguf(tensor("a", [16], 0, 0), tensor("b", [16], 0, 32), bytes(256), tensors=2, keys=0),
        "overlaps",
    ),
    "a tensor twice": (
        gguf(tensor("a", [8], 0, 0), tensor("a", [8], 0, 32), bytes(99), tensors=2, keys=0), "twice"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", GGUF)
def test_a_hostile_gguf_is_refused(tmp_path: Path, what: str) -> None:
    data, says = GGUF[what]
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    refused(path, says)


def test_a_gguf_header_is_bounded_however_big_the_file_is(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    with path.open("wb") as file:
        file.write(gguf(text("k"), kind(STRING), MAX_HEADER_BYTES + 1))
        file.truncate(1 << 40)  # sparse
    with bounded(), pytest.raises(CheckpointError):
        read_header(path)


def test_a_gguf_that_shrinks_while_it_is_read_is_refused(gguf_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes)
    source = open_source(path)
    path.write_bytes(gguf_bytes[: len(gguf_bytes) // 2])
    last = "model.layers.5.mlp.down_proj.weight"
    with pytest.raises(CheckpointError, match="shorter"):
        source.rows(last, 0, 64)


def test_reading_rows_does_not_read_the_whole(tmp_path: Path) -> None:
    rows, columns = 8192, 1024
    folder = write_checkpoint(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["big"] = np.zeros((rows, columns), np.float32)
    save_file(tensors, folder / "model.safetensors")
    source = Checkpoint(folder)
    tracemalloc.start()
    source.rows("big", 100, 200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 100 * columns * 4
