"""Runs spans and ends of the model in the tab; what it returns is compared outside."""

from __future__ import annotations

import base64
import json
from typing import Any

from pyodide_node.hosts.browser.engine import BrowserEngine
from pyodide_node.hosts.browser.store import BrowserStore
from pyodide_node.model.manifest import decode_manifest


async def main(bridge: Any, argument: str) -> str:
    given = json.loads(argument)
    store = BrowserStore(bridge.store)
    manifest = decode_manifest(await store.fetch(given["models"] + "manifest.json", 1 << 20))

    async def blob(sha256: str, size: int) -> Any:
        url, pieces = f"{given['models']}blobs/{sha256}", [(sha256, size)]
        await store.pull(url, None, pieces, keep=True, got=lambda *told: None)
        return await store.join(pieces)

    half = given["engine"] == "webgpu-fp16"
    if half and not bridge.half:
        return json.dumps({"engine": "none"})
    engine = BrowserEngine(bridge, "webgpu" if half else given["engine"])
    if half:
        assert engine.names(manifest) == ("webgpu-fp16",)
        engine.use("webgpu-fp16")
    result = {"engine": engine.name, "gpu": bridge.gpu}
    if "steps" in given:
        result["outputs"] = await steps(engine, manifest, blob, given)
    if "generate" in given:
        result["ids"] = await generate(engine, manifest, blob, given["generate"])
        ends = await engine.load_ends(manifest, blob)
        result["encoded"] = ends.encode(manifest.reference.prompt)
        result["decoded"] = ends.decode(manifest.reference.prompt_ids)
    return json.dumps(result)


async def steps(engine: Any, manifest: Any, blob: Any, given: dict[str, Any]) -> list[str]:
    """Each step: [first, last, position, hidden states in base64]; a range has its own cache."""
    span = await engine.load_span(manifest, *given["span"], blob)
    caches = {}
    outputs = []
    for first, last, position, encoded in given["steps"]:
        if (first, last) not in caches:
            caches[first, last] = span.open_cache(first, last, given["capacity"])
        hidden = base64.b64decode(encoded)
        count = len(hidden) // manifest.hidden_bytes(1)
        out = await span.run(caches[first, last], hidden, position, count)
        outputs.append(base64.b64encode(out).decode())
    for cache in caches.values():
        cache.close()
    await span.close()
    return outputs


async def generate(engine: Any, manifest: Any, blob: Any, count: int) -> list[int]:
    ends = await engine.load_ends(manifest, blob)
    span = await engine.load_span(manifest, 0, manifest.blocks, blob)
    ids = list(manifest.reference.prompt_ids)
    cache = span.open_cache(0, manifest.blocks, len(ids) + count)
    new, position, out = ids, 0, []
    for _ in range(count):
        hidden = await span.run(cache, await ends.embed(new), position, len(new))
        position += len(new)
        best = await ends.head(hidden[-manifest.hidden_bytes(1) :], 1.0, 1)
        new = [best.ids[0]]
        out += new
    await ends.close()
    return out
