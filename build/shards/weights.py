"""What each weights file holds, and its bytes, made a few rows at a time.

Never more than one matrix is in memory, and at 4 and 8 bits only some rows and the scales of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from build.shards.layout import Part, Slot, lay_out
from build.shards.quantise import BLOCK, Floats, Quantised, quantise
from build.shards.source import Bits, CheckpointError, Shape, Source

__all__ = ["check_blocks", "contents", "embed_parts", "ends_bits", "head_parts", "layer_parts"]

MOST_ENDS_BYTES = 400_000_000
"""Of the embedding and the head at 8 bits; past that they get 4 too, so that an asker with 1 GB can
hold those of a vocabulary of 128k."""

_CHUNK = 1 << 21
"""Weights read at once: 8 MB as float32."""


def ends_bits(shape: Shape, bits: Bits) -> Bits:
    """Bits of the embedding and the head: as in the blocks, unless those would be too big."""
    if bits != 8:
        return bits
    matrices = 1 if shape.tied else 2
    size = matrices * shape.vocab_size * shape.hidden_size * (BLOCK + 2) // BLOCK
    return 8 if size <= MOST_ENDS_BYTES else 4


def check_blocks(shape: Shape, bits: Bits) -> None:
    """Raises `CheckpointError` for inner sizes that are not whole blocks, where they must be."""
    if bits in (16, 32):
        return
    sizes = {
        "hidden_size": shape.hidden_size,
        "heads x head_dim": shape.heads * shape.head_dim,
        "intermediate_size": shape.intermediate_size,
    }
    for name, size in sizes.items():
        if size % BLOCK:
            raise CheckpointError(
                f"{name} is {size}, not a multiple of {BLOCK}, and {bits} bits go in blocks of"
                f" {BLOCK} weights: build with --bits 16"
            )


def layer_parts(s: Shape, index: int, bits: Bits) -> list[Part]:
    """Of one layer's file, in the order in which its graph uses them."""
    at = f"model.layers.{index}"
    queries, keys = s.heads * s.head_dim, s.kv_heads * s.head_dim
    qkv, each = ("q_proj", "k_proj", "v_proj"), (queries, keys, keys)

    def vector(name: str, tensor: str, size: int) -> Part:
        return Part(name, (f"{at}.{tensor}.weight",), (size,))

    def matrix(name: str, tensor: str, rows: int, columns: int) -> Part:
        return Part(name, (f"{at}.{tensor}.weight",), (rows,), columns, bits, turned=True)

    weights = tuple(f"{at}.self_attn.{name}.weight" for name in qkv)
    parts = [
        vector("attention_norm", "input_layernorm", s.hidden_size),
        Part("qkv", weights, each, s.hidden_size, bits, turned=True),
    ]
    if s.qkv_bias:
        parts.append(Part("qkv_bias", tuple(f"{at}.self_attn.{n}.bias" for n in qkv), each))
    if s.qk_norm:
        parts.append(vector("q_norm", "self_attn.q_norm", s.head_dim))
        parts.append(vector("k_norm", "self_attn.k_norm", s.head_dim))
    return [
        *parts,
        matrix("o", "self_attn.o_proj", s.hidden_size, queries),
        vector("mlp_norm", "post_attention_layernorm", s.hidden_size),
        matrix("gate", "mlp.gate_proj", s.intermediate_size, s.hidden_size),
        matrix("up", "mlp.up_proj", s.intermediate_size, s.hidden_size),
        matrix("down", "mlp.down_proj", s.hidden_size, s.intermediate_size),
    ]


def embed_parts(s: Shape, bits: Bits) -> list[Part]:
    """Of the embedding's file; tied, it is the head's too."""
    return head_parts(s, bits) if s.tied else [_table(s, "model.embed_tokens.weight", bits)]


def head_parts(s: Shape, bits: Bits) -> list[Part]:
    """Of the head's file: the last norm and the output matrix."""
    matrix = "model.embed_tokens.weight" if s.tied else "lm_head.weight"
    return [Part("norm", ("model.norm.weight",), (s.hidden_size,)), _table(s, matrix, bits)]


def _table(s: Shape, tensor: str, bits: Bits) -> Part:
    return Part("table", (tensor,), (s.vocab_size,), s.hidden_size, bits)


def contents(source: Source, parts: list[Part]) -> Iterator[tuple[Slot, Iterator[memoryview]]]:
    """The slots of the file in order, each with its bytes, piece by piece.

    A slot's bytes must be taken before the next slot is. Raises `CheckpointError`.
    """
    for part, slots in _slots_of(parts):
        if part.columns is None:
            each = zip(part.tensors, part.rows, strict=True)
            yield slots[0], (_bytes(_finite(t, source.tensor(t, size))) for t, size in each)
        elif part.bits in (4, 8):
            scales: list[memoryview] = []
            yield slots[0], _packed(source, part, scales)
            yield slots[1], iter(scales)
        elif part.turned:
            yield slots[0], _columns(source, part)
        else:
            yield slots[0], (_bytes(_narrow(part, rows)) for rows in _chunks(source, part))


def _slots_of(parts: list[Part]) -> Iterator[tuple[Part, list[Slot]]]:
    slots = iter(lay_out(parts))
    for part in parts:
        blocks = part.columns is not None and part.bits in (4, 8)
        yield part, [next(slots) for _ in range(1 + blocks)]


def _spans(part: Part) -> Iterator[tuple[str, int, int]]:
    """(tensor, first row, last row), a chunk each, all tensors in order."""
    assert part.columns is not None
    step = max(1, _CHUNK // part.columns)
    for tensor, rows in zip(part.tensors, part.rows, strict=True):
        for first in range(0, rows, step):
            yield tensor, first, min(rows, first + step)


def _chunks(source: Source, part: Part) -> Iterator[Floats]:
    for tensor, first, last in _spans(part):
        yield _read(source, part, tensor, first, last)


def _read(source: Source, part: Part, tensor: str, first: int, last: int) -> Floats:
    rows = source.rows(tensor, first, last)
    if rows.shape != (last - first, part.columns):
        raise CheckpointError(f"{tensor} has rows of another size than {part.columns}")
    return _finite(tensor, rows)


def _packed(source: Source, part: Part, scales: list[memoryview]) -> Iterator[memoryview]:
    bits: Literal[4, 8] = 4 if part.bits == 4 else 8
    for tensor, first, last in _spans(part):
        made = source.quantised(tensor, bits, first, last)
        if made is None:
            rows = _read(source, part, tensor, first, last)
            try:
                made = quantise(rows, bits)
            except ValueError as error:
                raise CheckpointError(f"{tensor}: {error}; build with --bits 32") from error
        _check_form(tensor, made, bits, last - first, part.columns)
        scales.append(_bytes(made.scales))
        yield _bytes(made.packed)


def _columns(source: Source, part: Part) -> Iterator[memoryview]:
    """The matrix turned, which needs all of it at once."""
    dtype = "<f2" if part.bits == 16 else "<f4"
    whole = np.empty((part.columns or 0, sum(part.rows)), dtype)
    at = 0
    for rows in _chunks(source, part):
        whole[:, at : at + len(rows)] = _narrow(part, rows).T
        at += len(rows)
    yield _bytes(whole)


def _narrow(part: Part, rows: Floats) -> NDArray[Any]:
    if part.bits == 32:
        return rows
    with np.errstate(over="ignore"):
        narrow = rows.astype("<f2")
    if not np.isfinite(narrow).all():
        raise CheckpointError(
            f"{part.tensors[0]} holds numbers that 16 bits cannot: build with --bits 32"
        )
    return narrow


def _finite(tensor: str, values: Floats) -> Floats:
    # The sum is NaN or infinite if any value is, and makes no array of booleans.
    if not np.isfinite(values.sum(dtype=np.float64)):
        raise CheckpointError(f"{tensor} holds NaN or infinity: the checkpoint is damaged")
    return values


def _check_form(tensor: str, made: Quantised, bits: int, rows: int, columns: int | None) -> None:
    if (made.bits, made.rows, made.columns) != (bits, rows, columns):
        raise CheckpointError(f"{tensor} is not [{rows}, {columns}] in blocks of {bits} bits")
    if not np.isfinite(made.scales).all():
        raise CheckpointError(f"{tensor} has a scale that is not a number: the file is damaged")


def _bytes(array: NDArray[Any]) -> memoryview:
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data
