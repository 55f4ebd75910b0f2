"""The head's matrix in parts of its rows.

ONNX Runtime's WASM unpacks a whole matrix to fp32 at every use, which for 128k tokens would take
2 GB; and few GPUs bind a buffer of more than some hundred megabytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from build.shards.layout import Slot
from build.shards.protos import node
from build.shards.quantise import BLOCK
from pyodide_node.model.footprint import UNPACKED

__all__ = ["cut", "join"]

_JOINED = 4
"""Parts put together at once: GPUs take few buffers in one shader."""


def cut(slots: Sequence[Slot], most: int = UNPACKED) -> tuple[list[Slot], list[str]]:
    """The same bytes as parts that take at most `most` bytes each once unpacked, and their names.

    Other tensors stay as they are, and so does a table that is not in blocks, or small.
    """
    by_name = {slot.name: slot for slot in slots}
    packed, scales = by_name.get("table.packed"), by_name.get("table.scales")
    if packed is None or scales is None:
        return list(slots), ["table"]
    rows, blocks, width = packed.dims
    each = max(1, most // (4 * blocks * BLOCK))
    if rows <= each:
        return list(slots), ["table"]
    made = [slot for slot in slots if slot not in (packed, scales)]
    names = []
    for at in range(0, rows, each):
        count, name = min(each, rows - at), f"table_{at}"
        names.append(name)
        made += [
            replace(
                packed, name=f"{name}.packed", dims=(count, blocks, width),
                offset=packed.offset + at * blocks * width,
            ),
            replace(
                scales, name=f"{name}.scales", dims=(count, blocks),
                offset=scales.offset + 2 * at * blocks,
            ),
        ]  # fmt: skip
    return made, names


def join(parts: Sequence[str], out: str) -> list[Any]:
    """Nodes that put the parts' columns side by side as `out`."""
    nodes: list[Any] = []
    while len(parts) > _JOINED:
        groups = [parts[at : at + _JOINED] for at in range(0, len(parts), _JOINED)]
        joined = [f"{group[0]}_and_{len(group)}" for group in groups]
        nodes += [
            node("Concat", list(group), [name], axis=-1)
            for group, name in zip(groups, joined, strict=True)
        ]
        parts = joined
    return [*nodes, node("Concat", list(parts), [out], axis=-1)]
