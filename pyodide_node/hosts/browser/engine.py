"""ONNX Runtime Web: on a GPU where there is a real one, else on WASM."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from pyodide.ffi import to_js

from pyodide_node.config import EnginePreference
from pyodide_node.errors import ConfigError, EngineError
from pyodide_node.hosts.base import BlobReader
from pyodide_node.inference.manifest import Blob, Manifest, Variant

from .ends import BrowserEnds
from .errors import awaited
from .span import BrowserSpan, Piece

__all__ = ["BrowserEngine", "choose_engine"]

EngineName = Literal["webgpu", "wasm", "wasm-int4"]


def choose_engine(preference: EnginePreference, gpu: str) -> EngineName:
    """`gpu` is "none", "software" (slower than WASM: only if asked for) or "hardware"."""
    if preference == "webgpu" and gpu == "none":
        raise ConfigError('engine="webgpu": this browser offers no GPU here', setting="engine")
    if preference != "auto":
        return preference
    return "webgpu" if gpu == "hardware" else "wasm"


class BrowserEngine:
    """See `base.Engine`. `blob` may return ArrayBuffers or bytes."""

    def __init__(self, bridge: Any, name: EngineName) -> None:
        self.name: EngineName = name
        self._bridge = bridge
        self._js = bridge.engine("webgpu" if name == "webgpu" else "wasm")

    @property
    def variant(self) -> Variant:
        return "wasm-expanded" if self.name == "wasm" else "gpu-fp32"

    def compact(self) -> bool:
        if self.name != "wasm":
            return False
        self.name = "wasm-int4"
        return True

    async def load_span(
        self, manifest: Manifest, first: int, last: int, blob: BlobReader
    ) -> BrowserSpan:
        if not manifest.has_span(first, last):
            raise EngineError(f"no blocks [{first}, {last}) in {manifest.name}")

        async def load(first: int, last: int) -> Piece:
            graph = manifest.graph(self.variant, last - first)
            files = manifest.span_blobs(first, last)
            js = await self._load(graph, files, manifest, last - first, blob)
            return Piece(first, last, js)

        return BrowserSpan(self._js, manifest, await load(first, last), load)

    async def load_ends(self, manifest: Manifest, blob: BlobReader) -> BrowserEnds:
        with_tokenizer = await blob(manifest.tokenizer.sha256, manifest.tokenizer.bytes)
        tokenizer = BrowserEnds.tokenizer(self._bridge, with_tokenizer)
        embed = await self._load(
            manifest.graph(self.variant, "embed"), {"embed.bin": manifest.embed}, manifest, 0, blob
        )
        head = await self._load(
            manifest.graph(self.variant, "head"), {"head.bin": manifest.head}, manifest, 0, blob
        )
        return BrowserEnds(self._js, manifest, tokenizer, embed, head)

    async def _load(
        self,
        graph: Blob,
        files: dict[str, Blob],
        manifest: Manifest,
        blocks: int,
        blob: BlobReader,
    ) -> Any:
        steps = ""
        expand = manifest.graphs.variants[self.variant].expand
        if expand and "embed.bin" not in files:
            recipe = expand.head if "head.bin" in files else expand.layer
            steps = msgspec.json.encode(recipe).decode()
        data = [to_js(await blob(file.sha256, file.bytes)) for file in files.values()]
        template = to_js(await blob(graph.sha256, graph.bytes))
        loading = self._js.load(template, to_js(list(files)), to_js(data), steps, blocks)
        return await awaited(loading, EngineError)
