"""A checkpoint as Hugging Face publishes it: `config.json`, `*.safetensors`, `tokenizer.json`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - numpy knows bfloat16 by name only once this is imported
import numpy as np
from msgspec import Struct
from safetensors import SafetensorError, safe_open

from build.shards.huggingface_config import (
    Config,
    generation_defaults,
    read_config,
    shape_of,
    token_ids,
)
from build.shards.huggingface_tokenizer import chat_of, read_tokenizer_config
from build.shards.quantise import Floats, Quantised
from build.shards.small_files import hash_files, inside, parse_json, read_small
from build.shards.source import (
    NOT_A_PICKLE,
    PICKLES,
    Bits,
    CheckpointError,
    Progress,
    Shape,
    finite,
    silent,
    tensor_shapes,
)
from build.shards.tokenizer import MAX_TOKENIZER_BYTES, first_id, open_tokenizer

__all__ = ["Checkpoint", "config_shape"]

MAX_HEADER_BYTES = 1 << 24
"""Of a safetensors file. The largest published ones name 20,000 tensors in 3 MB; the library's own
limit, 100 MB, would cost a gigabyte to read."""
_MAX_CONFIG_BYTES = 1 << 20
_MAX_INDEX_BYTES = 1 << 24
_MAX_CARD_BYTES = 1 << 20

_FLOATS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_COMPARED_ROWS = 1024

_BESIDE = (
    "config.json", "tokenizer.json", "generation_config.json", "tokenizer_config.json",
    "chat_template.jinja",
)  # fmt: skip
"""Files that decide the output, the weights aside."""


class _Index(Struct):
    weight_map: dict[str, str]


class Checkpoint:
    """A `Source`. Weights are mapped, not loaded: only the rows asked for are read."""

    bits: Bits = 4

    def __init__(self, folder: Path, context_length: int | None = None) -> None:
        """Raises `CheckpointError` for a folder that cannot become shards: everything but the
        values of the weights is looked at here.

        `context_length` caps the positions served (and with them the rotary tables).
        """
        self.folder = folder
        config = _config(folder)
        self._files = _weight_files(folder)
        self._of: dict[str, tuple[Path, str, tuple[int, ...]]] = {}
        for path, wanted in self._files.items():
            self._add(path, wanted)
        used = self._of.get("model.embed_tokens.weight"), self._of.get("lm_head.weight")
        dtype = (used[0] or used[1] or (None, "F32", ()))[1]
        self.format = f"safetensors {dtype}"
        self.shape = shape_of(config, config.tie_word_embeddings, context_length)
        if config.tie_word_embeddings and used[1]:
            # As transformers does: matrices that differ are not tied, whatever the config says.
            self.shape = shape_of(config, self._same_ends(), context_length)
        self._check_shapes()
        self._tokenizer = self._read_tokenizer()
        settings = read_tokenizer_config(folder)
        tokenizer = open_tokenizer(self._tokenizer, self.shape.vocab_size)
        self.bos_id = first_id(tokenizer)
        if settings.add_bos_token is not None:
            # As in transformers, the config's word counts more than the tokenizer's own.
            text = settings.special_tokens.get("bos_token", "")
            self.bos_id = tokenizer.token_to_id(text) if settings.add_bos_token and text else None
        self.chat = chat_of(folder, settings)
        self.generation, ends = generation_defaults(
            read_small(folder, "generation_config.json", _MAX_CONFIG_BYTES)
        )
        self.eos_ids = list(dict.fromkeys([*ends, *token_ids(config.eos_token_id)]))
        for token in self.eos_ids:
            if not 0 <= token < self.shape.vocab_size:
                raise CheckpointError(f"eos_token_id {token} is outside the vocabulary")
        self.license = _license(folder)

    def digest(self, progress: Progress = silent) -> str:
        """sha256 over every file that the shards depend on."""
        total = hashlib.sha256()
        files = {path.name: path for path in self._files}
        for name in _BESIDE:
            if (self.folder / name).exists():
                files[name] = inside(self.folder, name)
        names = sorted(files)
        hashes = hash_files([files[name] for name in names], progress)
        for name, sha256 in zip(names, hashes, strict=True):
            total.update(f"{name} {sha256}\n".encode())
        return total.hexdigest()

    def tokenizer(self) -> bytes:
        """The bytes of tokenizer.json."""
        return self._tokenizer

    def has(self, name: str) -> bool:
        """Whether the checkpoint has this tensor."""
        return name in self._of

    def rows(self, name: str, first: int, last: int) -> Floats:
        """Rows [first, last) of the named tensor, as f32."""
        path, _, dims = self._find(name)
        if not 0 <= first <= last <= dims[0]:
            raise CheckpointError(f"{name} has {dims[0]} rows, not [{first}, {last})")
        with _opened(path) as tensors:
            part = np.asarray(tensors.get_slice(name)[first:last])
        return finite(name, part.astype(np.float32))

    def tensor(self, name: str, *dims: int) -> Floats:
        """The named tensor as f32; `CheckpointError` when it is missing or of another shape."""
        found = self._find(name)[2]
        if found != dims:
            raise CheckpointError(f"{name} is {found}, config.json says {dims}")
        return self.rows(name, 0, dims[0])

    def quantised(self, name: str, bits: int, first: int, last: int) -> Quantised | None:
        """None: such checkpoints have floats."""
        return None

    def _find(self, name: str) -> tuple[Path, str, tuple[int, ...]]:
        found = self._of.get(name)
        if found is None:
            hint = ""
            if name == "lm_head.weight":
                hint = ", and config.json does not tie it to the embedding"
            raise CheckpointError(f"{self.folder} has no tensor {name}{hint}: is it complete?")
        return found

    def _add(self, path: Path, wanted: set[str] | None) -> None:
        """Notes a file's tensors; `wanted` are those that the index places there."""
        with _opened(path) as tensors:
            names = set(tensors.keys())
            if wanted is not None and not wanted <= names:
                raise CheckpointError(f"{path.name} has no tensor {min(wanted - names)[:200]}")
            for name in wanted or names:
                if name in self._of:
                    raise CheckpointError(f"tensor {name[:200]} is in two files: remove one")
                part = tensors.get_slice(name)
                self._of[name] = path, str(part.get_dtype()), tuple(part.get_shape())

    def _check_shapes(self) -> None:
        for name, dims in tensor_shapes(self.shape).items():
            _, dtype, found = self._find(name)
            if found != dims:
                raise CheckpointError(f"{name} is {found}, config.json says {dims}")
            if dtype not in _FLOATS:
                raise CheckpointError(
                    f"{name} is {dtype}; only F16, BF16 and F32 are supported: take the checkpoint"
                    " that is not quantised, or a GGUF file"
                )

    def _same_ends(self) -> bool:
        (_, one, dims), (_, other, dims_) = map(
            self._find, ("model.embed_tokens.weight", "lm_head.weight")
        )
        if (one, dims) != (other, dims_) or len(dims) != 2 or one not in _FLOATS:
            return False
        for first in range(0, dims[0], _COMPARED_ROWS):
            last = min(dims[0], first + _COMPARED_ROWS)
            left = self.rows("model.embed_tokens.weight", first, last)
            if not np.array_equal(left, self.rows("lm_head.weight", first, last)):
                return False
        return True

    def _read_tokenizer(self) -> bytes:
        data = read_small(self.folder, "tokenizer.json", MAX_TOKENIZER_BYTES)
        if data is None:
            raise CheckpointError(
                f"{self.folder} has no tokenizer.json: load its tokenizer with transformers'"
                " AutoTokenizer and save_pretrained() it there"
            )
        return data


def config_shape(folder: Path, context_length: int | None = None) -> Shape:
    """What `config.json` alone says of the sizes. Raises `CheckpointError`."""
    config = _config(folder)
    return shape_of(config, config.tie_word_embeddings, context_length)


def _config(folder: Path) -> Config:
    data = read_small(folder, "config.json", _MAX_CONFIG_BYTES)
    if data is None:
        raise CheckpointError(f"{folder} has no config.json: give a checkpoint folder")
    return read_config(data)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The library checks the header: every tensor inside the file, none overlapping."""
    try:
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > MAX_HEADER_BYTES:
            raise CheckpointError(f"{path.name} claims a header of {header} bytes: it is broken")
        with safe_open(path, framework="numpy") as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path.name} is broken, fetch it again: {error}") from None


def _weight_files(folder: Path) -> dict[Path, set[str] | None]:
    """Every file with weights, and which tensors its index places there."""
    data = read_small(folder, _INDEX, _MAX_INDEX_BYTES)
    if data is not None:
        placed: dict[str, set[str]] = {}
        for tensor, name in parse_json(_INDEX, data, _Index).weight_map.items():
            if not name.endswith(".safetensors"):
                raise CheckpointError(
                    f"{_INDEX} names {name[:200]!r}, which is no safetensors file"
                )
            placed.setdefault(name, set()).add(tensor)
        if placed:
            return {inside(folder, name): tensors for name, tensors in sorted(placed.items())}
    if (folder / _SINGLE).exists():
        return {inside(folder, _SINGLE): None}
    found = sorted(path.name for path in folder.glob("*.safetensors"))
    if found:
        return {inside(folder, name): None for name in found}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in PICKLES:
            raise CheckpointError(f"{folder} has no *.safetensors; {path.name}: {NOT_A_PICKLE}")
    raise CheckpointError(f"{folder} has no *.safetensors: give a checkpoint folder")


def _license(folder: Path) -> str | None:
    """The licence of the model card's front matter, as Hugging Face writes it."""
    for name in ("MODEL_CARD.md", "README.md"):
        data = read_small(folder, name, _MAX_CARD_BYTES)
        text = "" if data is None else data.decode(errors="replace").replace("\r\n", "\n")
        front = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
        said = dict(re.findall(r"^(license(?:_name)?):[ \t]*[\"']?([\w.+-]{1,100})", front[1], re.M)
                    if front else ())  # fmt: skip
        if said.get("license") == "other":
            return str(said.get("license_name", "other"))
        if "license" in said:
            return str(said["license"])
    return None
