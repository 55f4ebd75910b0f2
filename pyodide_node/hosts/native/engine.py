"""ONNX Runtime on the CPU: int4 weights as they are, fp32 sums."""

from __future__ import annotations

from pyodide_node.errors import EngineError
from pyodide_node.hosts.base import BlobReader, EngineName
from pyodide_node.inference.footprint import Footprint
from pyodide_node.inference.manifest import Manifest

from .ends import NativeEnds, load_ends
from .runtime import Runtime
from .span import NativeSpan, load_span

__all__ = ["NativeEngine"]


class NativeEngine:
    """See `base.Engine`. `threads` work within one operation; operations run one at a time."""

    name: EngineName = "onnxruntime"

    def __init__(self, threads: int = 1) -> None:
        self._runtime = Runtime(threads)

    def names(self, manifest: Manifest) -> tuple[EngineName, ...]:
        return (self.name,)

    def use(self, name: EngineName) -> None:
        """There is only one."""

    async def load_span(
        self, manifest: Manifest, first: int, last: int, blob: BlobReader
    ) -> NativeSpan:
        if not manifest.has_span(first, last):
            raise EngineError(f"no blocks [{first}, {last}) in {manifest.name}")
        pieces = Footprint(manifest, self.name).pieces(first, last)
        return await load_span(self._runtime, manifest, pieces, blob)

    async def load_ends(
        self, manifest: Manifest, blob: BlobReader, name: EngineName | None = None
    ) -> NativeEnds:
        return await load_ends(self._runtime, manifest, blob)

    def close(self) -> None:
        """End the engine's thread after what it is doing now."""
        self._runtime.close()
