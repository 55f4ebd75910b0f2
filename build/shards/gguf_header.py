"""The head of a GGUF file: metadata and where each tensor lies, read without trusting a number.

The `gguf` package names the constants and unpacks the blocks of weights. Its own reader is not
used: a length that lies past the end of the file makes it loop for hours.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from build.shards.source import CheckpointError

__all__ = ["MAGIC", "Header", "TensorInfo", "read_header"]

MAGIC = b"GGUF"

MAX_HEADER_BYTES = 1 << 26
"""Vocabularies of 256k tokens with their merges take 15 MB."""
MAX_KEYS = 1 << 12
MAX_TENSORS = 1 << 16
MAX_ITEMS = 1 << 22
"""Of all arrays together. Each costs about 60 bytes as a Python object."""
MAX_NAME_BYTES = 1 << 16
"""Of a key or of a tensor's name: more than the format allows for either."""
MAX_DIMS = 4

_SCALARS = {
    GGUFValueType.UINT8: "B",
    GGUFValueType.INT8: "b",
    GGUFValueType.UINT16: "H",
    GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I",
    GGUFValueType.INT32: "i",
    GGUFValueType.FLOAT32: "f",
    GGUFValueType.BOOL: "?",
    GGUFValueType.UINT64: "Q",
    GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT64: "d",
}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies. `dims` are outermost first, as numpy has them."""

    path: Path
    name: str
    kind: GGMLQuantizationType
    dims: tuple[int, ...]
    offset: int
    """From the beginning of the file."""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row (of the innermost dimension)."""
        block, size = GGML_QUANT_SIZES[self.kind]
        return self.dims[-1] // block * size

    @property
    def length(self) -> int:
        """Bytes of all of it."""
        return math.prod(self.dims[:-1]) * self.row_bytes


@dataclass(frozen=True, slots=True)
class Header:
    """Metadata by key, tensors by name."""

    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]

    def get(self, key: str, kind: type[_T]) -> _T | None:
        """A value of the given type; whole numbers are floats too. None where there is no such
        key; `CheckpointError` where it is something else."""
        value = self.metadata.get(key)
        if kind is float and type(value) is int:
            value = float(value)
        # bool is an int to Python, and is none here
        if value is None or (isinstance(value, kind) and type(value) is kind):
            return value
        raise CheckpointError(f"{key} is {type(value).__name__}, not {kind.__name__}")

    def require(self, key: str, kind: type[_T]) -> _T:
        """As `get`, for what every file must have."""
        value = self.get(key, kind)
        if value is None:
            raise CheckpointError(f"the file's metadata has no {key}")
        return value

    def strings(self, key: str) -> list[str]:
        """An array of strings; empty where there is none."""
        value = self.get(key, list)
        if value and not isinstance(value[0], str):
            raise CheckpointError(f"{key} is not an array of strings")
        return value or []

    def numbers(self, key: str) -> list[Any]:
        """An array of numbers; empty where there is none."""
        value = self.get(key, list)
        if value and isinstance(value[0], str):
            raise CheckpointError(f"{key} is not an array of numbers")
        return value or []


def read_header(path: Path) -> Header:
    """Raises `CheckpointError`; reads `MAX_HEADER_BYTES` at most, whatever the file claims."""
    try:
        with path.open("rb") as file:
            return _Reader(path, file, path.stat().st_size).header()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    except CheckpointError as error:
        raise CheckpointError(f"{path.name}: {error}") from None


class _Reader:
    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self._path = path
        self._file = file
        self._size = size
        self._read = 0
        self._items = 0

    def header(self) -> Header:
        if self._take(4) != MAGIC:
            raise CheckpointError("this is not a GGUF file")
        version = self._number("I")
        if version & 0xFFFF == 0:
            raise CheckpointError("it is written for big-endian machines, which is not supported")
        if version not in (2, 3):
            raise CheckpointError(f"GGUF version {version} is not supported, only 2 and 3")
        tensors, keys = self._number("Q"), self._number("Q")
        if tensors > MAX_TENSORS or keys > MAX_KEYS:
            raise CheckpointError(f"it claims {tensors} tensors and {keys} metadata keys")
        metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = self._string(MAX_NAME_BYTES)
            if key in metadata:
                raise CheckpointError(f"the metadata key {key[:100]} is there twice")
            metadata[key] = self._value(self._kind())
        found: dict[str, TensorInfo] = {}
        for _ in range(tensors):
            info = self._tensor()
            if info.name in found:
                raise CheckpointError(f"the tensor {info.name[:100]} is there twice")
            found[info.name] = info
        return Header(metadata, self._placed(found, metadata.get("general.alignment", 32)))

    def _placed(self, tensors: dict[str, TensorInfo], align: Any) -> dict[str, TensorInfo]:
        """The same with offsets from the file's beginning, once they are known to be inside."""
        if type(align) is not int or not 1 <= align <= 1 << 16 or align & (align - 1):
            raise CheckpointError("general.alignment is not a power of two of at most 65536")
        start = self._read + -self._read % align
        end = start
        placed: dict[str, TensorInfo] = {}
        for info in sorted(tensors.values(), key=lambda info: info.offset):
            offset = start + info.offset
            if info.offset % align or offset < end or offset + info.length > self._size:
                raise CheckpointError(
                    f"the tensor {info.name[:100]} overlaps another or lies outside the file:"
                    " it was cut or is broken, fetch it again"
                )
            end = offset + info.length
            placed[info.name] = replace(info, offset=offset)
        return placed

    def _tensor(self) -> TensorInfo:
        name = self._string(MAX_NAME_BYTES)
        count = self._number("I")
        if not 1 <= count <= MAX_DIMS:
            raise CheckpointError(f"the tensor {name[:100]} has {count} dimensions")
        dims = tuple(self._number("Q") for _ in range(count))[::-1]
        number = self._number("I")
        try:
            kind = GGMLQuantizationType(number)
        except ValueError:
            raise CheckpointError(f"the tensor {name[:100]} is of unknown type {number}") from None
        block = GGML_QUANT_SIZES[kind][0]
        if math.prod(dims) == 0 or dims[-1] % block:
            raise CheckpointError(f"the tensor {name[:100]} of {dims} is not whole blocks")
        return TensorInfo(self._path, name, kind, dims, self._number("Q"))

    def _kind(self) -> GGUFValueType:
        number = self._number("I")
        try:
            return GGUFValueType(number)
        except ValueError:
            raise CheckpointError(f"metadata of unknown type {number}") from None

    def _value(self, kind: GGUFValueType) -> Any:
        if kind == GGUFValueType.STRING:
            return self._string(MAX_HEADER_BYTES)
        if kind != GGUFValueType.ARRAY:
            return self._number(_SCALARS[kind])
        inner, count = self._kind(), self._number("Q")
        self._items += count
        if self._items > MAX_ITEMS:
            raise CheckpointError(f"its metadata claims arrays of {self._items} items")
        if inner == GGUFValueType.ARRAY:
            raise CheckpointError("arrays in arrays are not supported")
        if inner == GGUFValueType.STRING:
            return [self._string(MAX_HEADER_BYTES) for _ in range(count)]
        dtype = np.dtype(_SCALARS[inner]).newbyteorder("<")
        return np.frombuffer(self._take(count * dtype.itemsize), dtype).tolist()

    def _number(self, form: str) -> Any:
        return struct.unpack(f"<{form}", self._take(struct.calcsize(f"<{form}")))[0]

    def _string(self, most: int) -> str:
        length = self._number("Q")
        if length > most:
            raise CheckpointError(f"a text of {length} bytes")
        try:
            return self._take(length).decode()
        except UnicodeDecodeError:
            raise CheckpointError("a text that is not UTF-8") from None

    def _take(self, count: int) -> bytes:
        # Looked at before reading: a length from the file must not become an allocation.
        if count > min(self._size, MAX_HEADER_BYTES) - self._read:
            raise CheckpointError(
                "its head is cut, or claims to be longer than any: fetch it again"
            )
        self._read += count
        data = self._file.read(count)
        if len(data) != count:
            raise CheckpointError("it became shorter while it was read")
        return data
