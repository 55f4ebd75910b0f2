"""ONNX Runtime Web: on a GPU where there is a real one, else on WASM."""

from __future__ import annotations

from typing import Any

import msgspec
from pyodide.ffi import to_js

from pyodide_node.config import EnginePreference
from pyodide_node.errors import ConfigError, EngineError
from pyodide_node.hosts.base import BlobReader, EngineName, PieceReader
from pyodide_node.hosts.rows import require_table
from pyodide_node.hosts.sessions import Sessions
from pyodide_node.model.footprint import VARIANTS, Footprint, wasm_engines
from pyodide_node.model.manifest import Blob, Manifest

from .ends import BrowserEnds
from .errors import awaited
from .span import BrowserSpan

__all__ = ["BrowserEngine", "choose_engine"]


def choose_engine(preference: EnginePreference, gpu: str) -> EnginePreference:
    """Never "auto". `gpu` is "none", "software" (slower than WASM: only if asked for) or
    "hardware". Raises ConfigError."""
    if preference == "webgpu" and gpu == "none":
        raise ConfigError('engine="webgpu": this browser offers no GPU here', setting="engine")
    if preference != "auto":
        return preference
    return "webgpu" if gpu == "hardware" else "wasm"


class BrowserEngine:
    """See `base.Engine`. `blob` may return what the store joins, which loading takes, or bytes."""

    def __init__(self, bridge: Any, chosen: EnginePreference) -> None:
        self.name: EngineName = "wasm" if chosen == "auto" else chosen
        self._chosen = chosen
        self._bridge = bridge
        self._js = bridge.engine("webgpu" if chosen == "webgpu" else "wasm")

    def names(self, manifest: Manifest) -> tuple[EngineName, ...]:
        has = manifest.graphs.variants
        if self._chosen == "webgpu":
            return ("webgpu-fp16" if self._bridge.half and "gpu-fp16" in has else "webgpu",)
        names = wasm_engines(manifest)
        chosen = tuple(name for name in names if name == self._chosen != "wasm")
        return chosen or names

    def use(self, name: EngineName) -> None:
        self.name = name

    async def load_span(
        self, manifest: Manifest, first: int, last: int, blob: BlobReader
    ) -> BrowserSpan:
        if not manifest.has_span(first, last):
            raise EngineError(f"no blocks [{first}, {last}) in {manifest.name}")
        name = self.name

        async def load(first: int, last: int) -> Any:
            graph = manifest.graph(VARIANTS[name], last - first)
            files = manifest.span_blobs(first, last)
            return await self._load(graph, files, name, manifest, last - first, blob)

        async def release(session: Any) -> None:
            await awaited(self._js.release(session), EngineError)

        sessions = Sessions(load, release)
        await sessions.load(Footprint(manifest, name).pieces(first, last))
        half = name == "webgpu-fp16"
        return BrowserSpan(self._js, manifest, sessions, (first, last), half=half)

    async def load_ends(
        self,
        manifest: Manifest,
        blob: BlobReader,
        name: EngineName | None = None,
        rows: PieceReader | None = None,
    ) -> BrowserEnds:
        name = name or self.name
        with_tokenizer = await blob(manifest.tokenizer.sha256, manifest.tokenizer.bytes)
        tokenizer = BrowserEnds.tokenizer(self._bridge, with_tokenizer)
        # The head first: it is the larger, and so is what it needs while it loads.
        head_graph = manifest.graph(VARIANTS[name], "head")
        head = await self._load(head_graph, {"head.bin": manifest.head}, name, manifest, 0, blob)
        if rows is not None:
            by_row = BrowserEnds.rows(self._bridge, require_table(manifest), rows)
            return BrowserEnds(self._js, manifest, tokenizer, by_row, head)
        embed_graph = manifest.graph(VARIANTS[name], "embed")
        files = {"embed.bin": manifest.embed}
        embed = await self._load(embed_graph, files, name, manifest, 0, blob)
        return BrowserEnds(self._js, manifest, tokenizer, embed, head)

    async def _load(
        self,
        graph: Blob,
        files: dict[str, Blob],
        name: EngineName,
        manifest: Manifest,
        blocks: int,
        blob: BlobReader,
    ) -> Any:
        steps = ""
        expand = manifest.graphs.variants[VARIANTS[name]].expand
        if expand and "embed.bin" not in files:
            recipe = expand.head if "head.bin" in files else expand.layer
            steps = msgspec.json.encode(recipe).decode()
        data = [to_js(await blob(file.sha256, file.bytes)) for file in files.values()]
        template = to_js(await blob(graph.sha256, graph.bytes))
        loading = self._js.load(template, to_js(list(files)), to_js(data), steps, blocks)
        return await awaited(loading, EngineError)
