"""Which bytes lie where in a weights file.

Every layer's file has the same layout, so one graph template fits any span: only the files that
are handed to the session change. A node without a fast kernel for few bits expands a file once, at
load, into the one that the plain fp32 graphs read; the manifest lists those steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from build.shards.quantise import BLOCK
from build.shards.source import Bits
from pyodide_node.model.manifest import (
    ALIGN,
    CopyStep,
    DequantiseBytesStep,
    DequantiseStep,
    ExpandStep,
    IntegerStep,
    UnitStep,
    WidenStep,
)

__all__ = ["Part", "Slot", "expansion", "integers", "lay_out", "size_of"]

Kind = Literal["vector", "packed", "scales", "rows", "columns", "integers"]
Dtype = Literal["float32", "float16", "uint8", "int8"]

_BYTES: dict[Dtype, int] = {"float32": 4, "float16": 2, "uint8": 1, "int8": 1}


@dataclass(frozen=True, slots=True)
class Part:
    """One parameter of a graph, and the checkpoint's tensors whose rows it stacks."""

    name: str
    tensors: tuple[str, ...]
    rows: tuple[int, ...]
    """Of each tensor."""
    columns: int | None = None
    """The inner size of a matrix; None: a vector."""
    bits: Bits = 32
    turned: bool = False
    """At 16 and 32 bits: f[K, N], as MatMul reads its right side, and not f[N, K] as a table's
    rows are looked up."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One tensor of a weights file: what the graph calls it and where its bytes are.

    `packed` u8[N, K/32, 4 * bits] and `scales` f16[N, K/32] are a matrix in blocks; `rows` [N, K]
    and `columns` [K, N] are one in floats, `integers` [K, N] one in int8.
    """

    name: str
    kind: Kind
    dtype: Dtype
    dims: tuple[int, ...]
    offset: int

    @property
    def length(self) -> int:
        """Bytes."""
        return math.prod(self.dims) * _BYTES[self.dtype]

    @property
    def end(self) -> int:
        return self.offset + self.length


def lay_out(parts: Sequence[Part]) -> list[Slot]:
    """The parts in order, each tensor at a multiple of 64 bytes.

    A matrix of 4 or 8 bits becomes two slots, `<name>.packed` and `<name>.scales`. All numbers are
    little-endian.
    """
    slots: list[Slot] = []
    for part in parts:
        rows = sum(part.rows)
        if part.columns is None:
            _append(slots, part.name, "vector", "float32", (rows,))
        elif part.bits in (4, 8):
            blocks = part.columns // BLOCK
            packed = (rows, blocks, 4 * part.bits)
            _append(slots, f"{part.name}.packed", "packed", "uint8", packed)
            _append(slots, f"{part.name}.scales", "scales", "float16", (rows, blocks))
        else:
            dtype: Dtype = "float16" if part.bits == 16 else "float32"
            if part.turned:
                _append(slots, part.name, "columns", dtype, (part.columns, rows))
            else:
                _append(slots, part.name, "rows", dtype, (rows, part.columns))
    return slots


def size_of(slots: Sequence[Slot]) -> int:
    """Bytes of a file of this layout."""
    return slots[-1].end


def expansion(slots: Sequence[Slot]) -> tuple[list[Slot], list[ExpandStep]]:
    """The layout of the expanded file, all float32, and the steps that make it.

    A matrix in blocks becomes f32[K, N] under its own name (transposed, as MatMul wants its right
    side); floats keep their order.
    """
    expanded: list[Slot] = []
    steps: list[ExpandStep] = []
    by_name = {slot.name: slot for slot in slots}
    for slot in slots:
        match slot.kind:
            case "scales":
                continue
            case "packed":
                name = slot.name.removesuffix(".packed")
                n, blocks, width = slot.dims
                made = _append(expanded, name, "columns", "float32", (blocks * BLOCK, n))
                step = DequantiseStep if width * 2 == BLOCK else DequantiseBytesStep
                scales = by_name[f"{name}.scales"].offset
                steps.append(
                    step(
                        source=slot.offset, scales=scales, k=blocks * BLOCK, n=n,
                        target=made.offset, length=made.length,
                    )
                )  # fmt: skip
            case _:
                made = _append(expanded, slot.name, slot.kind, "float32", slot.dims)
                copied = CopyStep if slot.dtype == "float32" else WidenStep
                steps.append(copied(source=slot.offset, target=made.offset, length=made.length))
    return expanded, steps


def integers(slots: Sequence[Slot]) -> tuple[list[Slot], list[ExpandStep]]:
    """As `expansion`, with each matrix in blocks as i8[K, N] and the units of its rows, f32[N], as
    `<name>.units`."""
    made: list[Slot] = []
    steps: list[ExpandStep] = []
    by_name = {slot.name: slot for slot in slots}
    for slot in slots:
        if slot.kind == "packed":
            name = slot.name.removesuffix(".packed")
            n, blocks, width = slot.dims
            bits: Literal[4, 8] = 4 if width * 2 == BLOCK else 8
            k, scales = blocks * BLOCK, by_name[f"{name}.scales"].offset
            matrix = _append(made, name, "integers", "int8", (k, n))
            units = _append(made, f"{name}.units", "vector", "float32", (n,))
            steps += [
                step(
                    source=slot.offset, scales=scales, bits=bits, k=k, n=n,
                    target=here.offset, length=here.length,
                )
                for step, here in ((IntegerStep, matrix), (UnitStep, units))
            ]  # fmt: skip
        elif slot.kind != "scales":
            here = _append(made, slot.name, slot.kind, "float32", slot.dims)
            copied = CopyStep if slot.dtype == "float32" else WidenStep
            steps.append(copied(source=slot.offset, target=here.offset, length=here.length))
    return made, steps


def _append(slots: list[Slot], name: str, kind: Kind, dtype: Dtype, dims: tuple[int, ...]) -> Slot:
    end = slots[-1].end if slots else 0
    slots.append(Slot(name, kind, dtype, dims, end + -end % ALIGN))
    return slots[-1]
