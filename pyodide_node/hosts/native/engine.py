"""ONNX Runtime on the CPU: fp32 sums; int4 weights as they are, int8 ones expanded if they fit."""

from __future__ import annotations

from pyodide_node.errors import EngineError
from pyodide_node.hosts.base import BlobReader, EngineName, PieceReader
from pyodide_node.model.footprint import VARIANTS, Footprint, native_engines
from pyodide_node.model.manifest import Manifest

from .ends import NativeEnds, load_ends
from .runtime import Runtime
from .span import NativeSpan, load_span

__all__ = ["NativeEngine"]


class NativeEngine:
    """See `base.Engine`. `threads` work within one operation; operations run one at a time."""

    def __init__(self, threads: int = 1) -> None:
        self.name: EngineName = "onnxruntime"
        self._runtime = Runtime(threads)

    def names(self, manifest: Manifest) -> tuple[EngineName, ...]:
        return native_engines(manifest)

    def use(self, name: EngineName) -> None:
        self.name = name

    async def load_span(
        self, manifest: Manifest, first: int, last: int, blob: BlobReader
    ) -> NativeSpan:
        if not manifest.has_span(first, last):
            raise EngineError(f"no blocks [{first}, {last}) in {manifest.name}")
        footprint = Footprint(manifest, self.name)
        pieces = footprint.pieces(first, last)
        return await load_span(self._runtime, manifest, footprint.variant, pieces, blob)

    async def load_ends(
        self,
        manifest: Manifest,
        blob: BlobReader,
        name: EngineName | None = None,
        rows: PieceReader | None = None,
    ) -> NativeEnds:
        variant = VARIANTS[name or self.name]
        return await load_ends(self._runtime, manifest, variant, blob, rows)

    def close(self) -> None:
        """End the engine's thread after what it is doing now."""
        self._runtime.close()
