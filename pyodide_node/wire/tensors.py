"""Checks on tensors that came from outside. Without numpy: a tab has none."""

from __future__ import annotations

import math

from pyodide_node.errors import ProtocolError
from pyodide_node.wire.frames import Buffer

__all__ = ["FLOAT32", "check_activations", "last_row"]

FLOAT32 = 4


def check_activations(data: Buffer, count: int, hidden_size: int) -> None:
    """Raise ProtocolError unless `data` is float32[count, hidden_size], all of it finite."""
    expected = count * hidden_size * FLOAT32
    if len(data) != expected:
        raise ProtocolError(
            f"activations of {len(data)} bytes where {count} x {hidden_size} float32 were due",
            size=len(data),
            expected=expected,
        )
    # A sum in float64 of float32 values is finite exactly when each of them is.
    if not math.isfinite(sum(memoryview(data).cast("B").cast("f"))):
        raise ProtocolError("activations hold NaN or infinity", count=count)


def last_row(data: Buffer, hidden_size: int) -> Buffer:
    """The last position of float32[count, hidden_size], as bytes."""
    return memoryview(data).cast("B")[-hidden_size * FLOAT32 :]
