"""What a model takes of a node's memory: the one arithmetic for nodes, plans and tests.

A span is loaded piece by piece, one engine session each, so that at its worst a node holds what is
loaded already, the files of one piece and the engine's copy of them. A big block is a piece of its
own; small ones share a session, because each session costs about half a millisecond a step.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pyodide_node.hosts.base import EngineName
from pyodide_node.model.manifest import (
    DequantiseBytesStep,
    DequantiseStep,
    Manifest,
    Variant,
)

__all__ = [
    "NATIVE_ENGINES",
    "SESSION_POSITIONS",
    "UNPACKED",
    "VARIANTS",
    "Footprint",
    "best_engine",
    "native_engines",
    "wasm_engines",
]

VARIANTS: Final[dict[EngineName, Variant]] = {
    "webgpu": "gpu-fp32",
    "webgpu-fp16": "gpu-fp16",
    "wasm": "wasm-expanded",
    "wasm-int8": "wasm-int8",
    "wasm-int4": "gpu-fp32",
    "onnxruntime": "gpu-fp32",
    "onnxruntime-fp32": "wasm-expanded",
    "simulated": "gpu-fp32",
}
"""The graphs that an engine runs."""

_WORTH: Final[dict[EngineName, float]] = {
    "wasm-int8": 0.5,
    "wasm-int4": 0.05,
    "onnxruntime": 0.05,
}
"""Of a block, 1 elsewhere, where room decides between engines: by speed, and wasm-int8 less than
that because it is not exact. A position in one block of Llama 8B's width takes about 50 ms on
"wasm", 75 on "wasm-int8" and 900 on "wasm-int4"."""

_AGAIN: Final[dict[EngineName, float]] = {
    "wasm": 1.0,
    "wasm-int8": 0.5,
    "onnxruntime": 0.25,
    "onnxruntime-fp32": 1.0,
}
"""While it loads, ONNX Runtime lays weights out anew for its kernels: so much of them lies in
memory twice."""

_READ_ONCE: Final = frozenset({"webgpu", "webgpu-fp16", "wasm-int4"})
"""Engines of a tab that take files as they are: each piece goes when it has been copied, so that
file and copy never lie in memory together (loader/worker/file.ts)."""

_GARBAGE: Final = 250_000_000
"""What a browser has not collected yet of the pieces that a file came in, at most: measured with
files of 123 MB that were expanded."""
_READ_ONCE_GARBAGE: Final = 160_000_000
"""The same where files are read once: with files of 123 and of 296 MB."""

_HEAP: Final = 3_700_000_000
"""Bytes that a WASM engine can hold, whatever the cap: its addresses have 32 bits."""

_PIECE: Final = 128_000_000
"""Bytes of loaded weights that several blocks may have in one session."""
_ROPE_SHARE: Final = 4
"""A session has its own rotary table. Pieces grow until that is a quarter of them at most."""

SESSION_POSITIONS: Final = 4096
"""Room is kept for one session of so many positions, or of the whole context if that is shorter. A
full one of 131072 would leave no room for blocks; sessions may be longer while memory is free."""

UNPACKED: Final = 1 << 27
"""Bytes of fp32 that the head's matrix takes at once where it is unpacked at every use: graphs cut
it into parts of at most so much."""


NATIVE_ENGINES: Final[tuple[EngineName, ...]] = ("onnxruntime-fp32", "onnxruntime")
"""All that a native node may choose, fastest first."""

_COLLECTED: Final = frozenset({*NATIVE_ENGINES, "simulated"})
"""Engines of hosts that give memory back at once."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of memory that one model takes on one engine. Spans are `[first, last)` in blocks."""

    manifest: Manifest
    engine: EngineName

    @property
    def variant(self) -> Variant:
        return VARIANTS[self.engine]

    @property
    def session_positions(self) -> int:
        """Positions of the session that room is kept for."""
        return min(self.manifest.context_length, SESSION_POSITIONS)

    def pieces(self, first: int, last: int) -> list[tuple[int, int]]:
        """The sessions that a span is loaded as, one after another."""
        rope = self.manifest.rope.bytes
        block = self.manifest.span_bytes(0, 1, self.variant) - rope
        count = max(1, (max(_PIECE, _ROPE_SHARE * rope) - rope) // block)
        return [(at, min(at + count, last)) for at in range(first, last, count)]

    def span(self, first: int, last: int) -> int:
        """What a span takes once it is loaded."""
        return sum(self._piece(*piece) for piece in self.pieces(first, last))

    def loading(self, first: int, last: int) -> int:
        """The most that a span takes while it is loaded."""
        before = most = 0
        for piece in self.pieces(first, last):
            files = sum(blob.bytes for blob in self.manifest.span_blobs(*piece).values())
            most = max(most, before + self.copying(files, self._piece(*piece)))
            before += self._piece(*piece)
        return most

    def session(self, positions: int, blocks: int) -> int:
        """Keys and values of one session."""
        return self.manifest.kv_bytes(positions, blocks, self.variant)

    def serving(self, blocks: int, spare: int = 0) -> int:
        """What so many blocks take with a session over them, while they load, or beside `spare`
        bytes: the greatest."""
        session = self.session(self.session_positions, blocks) + self.working("layer")
        return max(self.loading(0, blocks), self.span(0, blocks) + max(session, spare))

    def room(self, free: int, most: int | None = None, spare: int = 0) -> int:
        """Blocks that fit in `free` bytes in all, at most `most` of them."""
        blocks = self.manifest.blocks if most is None else min(most, self.manifest.blocks)
        if self.engine in ("wasm", "wasm-int8", "wasm-int4"):
            free = min(free, _HEAP)
        sizes = range(1, blocks + 1)
        return bisect_right(sizes, free, key=lambda count: self.serving(count, spare))

    def working(self, what: Literal["layer", "head"]) -> int:
        """What a step takes beside weights and cache. WASM has no kernel for packed weights: it
        unpacks a matrix to fp32 whenever it uses it."""
        expand = self.manifest.graphs.variants["wasm-expanded"].expand
        if self.engine != "wasm-int4" or expand is None:
            return 0
        steps = expand.layer if what == "layer" else expand.head
        unpacked = max(
            (one.length for one in steps if isinstance(one, DequantiseStep | DequantiseBytesStep)),
            default=0,
        )
        return unpacked if what == "layer" else min(unpacked, UNPACKED)

    def _piece(self, first: int, last: int) -> int:
        return self.manifest.span_bytes(first, last, self.variant)

    def copying(self, files: int, loaded: int, *, one_tensor: bool = False) -> int:
        """What is there at once while files become `loaded` bytes of an engine: the files, the
        engine's copy, and what a browser has not collected yet of the pieces that they came in."""
        if self.engine in _READ_ONCE:  # the engine is handed a copy of each tensor
            return max(files, loaded) + min(files, _READ_ONCE_GARBAGE) + files * one_tensor
        again = int(loaded * _AGAIN.get(self.engine, 0.0))
        garbage = 0 if self.engine in _COLLECTED else min(2 * files, _GARBAGE)
        return files + garbage + loaded + again


def wasm_engines(manifest: Manifest) -> tuple[EngineName, ...]:
    """What a tab without a GPU can run a model on, fastest first."""
    names: list[EngineName] = ["wasm"]
    if "wasm-int8" in manifest.graphs.variants:
        names.append("wasm-int8")
    if manifest.bits <= 8:  # wider weights take as much as they are
        names.append("wasm-int4")
    return tuple(names)


def native_engines(manifest: Manifest) -> tuple[EngineName, ...]:
    """What ONNX Runtime on a CPU can run a model on, fastest first.

    Its kernel for 8-bit weights with float sums is fifty times slower than the one for 4 bits:
    they are expanded to fp32 as long as they fit.
    """
    return NATIVE_ENGINES if manifest.bits == 8 else ("onnxruntime",)


def best_engine(
    manifest: Manifest,
    engines: Sequence[EngineName],
    free: int,
    most: int | None = None,
    spare: int = 0,
) -> EngineName:
    """The engine that does most for a swarm with `free` bytes: by blocks and their speed."""

    def worth(engine: EngineName) -> float:
        return Footprint(manifest, engine).room(free, most, spare) * _WORTH.get(engine, 1.0)

    return max(engines, key=worth)  # the first of equals
