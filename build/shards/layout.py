"""Which bytes lie where in a weights file.

Every layer's file has the same layout, so one graph template fits any span: only the files that
are handed to the session change. A node without a fast int4 kernel expands a file once, at load,
into the one that the plain fp32 graphs read; the manifest lists those steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from build.shards.quantise import BLOCK, Bits, Quantised, dequantise
from pyodide_node.inference.manifest import (
    CopyStep,
    DequantiseStep,
    ExpandStep,
    WidenStep,
)

ALIGN = 64
"""Bytes; a cache line, and more than any kernel asks of its operands."""

Part = Quantised | NDArray[np.float32] | NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Slot:
    """One tensor of a weights file: what the graph calls it and where its bytes are."""

    name: str
    kind: Literal["plain", "packed", "scales"]
    dtype: str
    dims: tuple[int, ...]
    offset: int
    length: int


def pack(parts: Mapping[str, Part]) -> tuple[list[Slot], bytes]:
    """Lays the parts out in order, each at a multiple of 64 bytes, zeros between.

    A quantised part becomes two slots, `<name>.packed` and `<name>.scales`. All numbers are
    little-endian.
    """
    slots: list[Slot] = []
    file = bytearray()

    def put(name: str, kind: Literal["plain", "packed", "scales"], array: NDArray[Any]) -> None:
        file.extend(bytes(-len(file) % ALIGN))
        raw = array.astype(array.dtype.newbyteorder("<")).tobytes()
        slots.append(Slot(name, kind, array.dtype.name, array.shape, len(file), len(raw)))
        file.extend(raw)

    for name, part in parts.items():
        if isinstance(part, Quantised):
            put(f"{name}.packed", "packed", part.packed)
            put(f"{name}.scales", "scales", part.scales.reshape(-1))
        else:
            put(name, "plain", part)
    return slots, bytes(file)


def expansion(slots: list[Slot]) -> tuple[list[Slot], list[ExpandStep]]:
    """The layout of the expanded file, and the steps that make it from the int4 one.

    A quantised matrix becomes f32[K, N] under its own name (transposed, as MatMul wants its
    right side); everything else is copied.
    """
    expanded: list[Slot] = []
    steps: list[ExpandStep] = []
    by_name = {slot.name: slot for slot in slots}
    end = 0
    for slot in slots:
        target = end + -end % ALIGN
        if slot.kind == "packed":
            name = slot.name.removesuffix(".packed")
            rows, columns = slot.dims[0], slot.dims[1] * slot.dims[2] * 2
            length = rows * columns * 4
            scales = by_name[f"{name}.scales"].offset
            expanded.append(Slot(name, "plain", "float32", (columns, rows), target, length))
            steps.append(
                DequantiseStep(
                    source=slot.offset, scales=scales, k=columns, n=rows, target=target,
                    length=length,
                )
            )  # fmt: skip
        elif slot.kind == "plain":
            length = slot.length
            expanded.append(Slot(slot.name, "plain", slot.dtype, slot.dims, target, length))
            steps.append(CopyStep(source=slot.offset, target=target, length=length))
        else:
            continue
        end = target + length
    return expanded, steps


def expand(file: bytes, steps: list[ExpandStep]) -> bytes:
    """Runs the steps: what a node does at load, here in numpy."""
    out = bytearray(max(step.target + step.length for step in steps))
    for step in steps:
        out[step.target : step.target + step.length] = _made(file, step)
    return bytes(out)


def _made(file: bytes, step: ExpandStep) -> bytes:
    if isinstance(step, CopyStep):
        return file[step.source : step.source + step.length]
    if isinstance(step, WidenStep):
        return np.frombuffer(file, "<f2", step.length // 4, step.source).astype("<f4").tobytes()
    bits: Bits = 4 if isinstance(step, DequantiseStep) else 8
    blocks = step.k // BLOCK
    packed = np.frombuffer(file, np.uint8, step.n * step.k * bits // 8, step.source)
    scales = np.frombuffer(file, "<f2", step.n * blocks, step.scales)
    matrix = Quantised(packed.reshape(step.n, blocks, 4 * bits), scales.reshape(step.n, blocks))
    return np.ascontiguousarray(dequantise(matrix).T).astype("<f4").tobytes()
