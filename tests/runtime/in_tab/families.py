"""Greedy ids of several models in the tab, each run as two spans one behind the other."""

from __future__ import annotations

import json
from typing import Any

from pyodide_node.hosts.browser.ends import BrowserEnds
from pyodide_node.hosts.browser.engine import BrowserEngine
from pyodide_node.hosts.browser.store import BrowserStore
from pyodide_node.hosts.rows import require_table
from pyodide_node.model.manifest import decode_manifest


async def main(bridge: Any, argument: str) -> str:
    given = json.loads(argument)
    store, ids = BrowserStore(bridge.store), {}
    for name, prompt in given["prompts"].items():
        engine = BrowserEngine(bridge, given["engine"])
        folder = f"{given['root']}{name}/"
        ids[name] = await answer(bridge, engine, store, folder, prompt, given["count"])
    return json.dumps(ids)


async def answer(
    bridge: Any, engine: Any, store: Any, folder: str, prompt: list[int], count: int
) -> list[int]:
    manifest = decode_manifest(await store.fetch(folder + "manifest.json", 1 << 20))

    async def blob(sha256: str, size: int) -> Any:
        pieces = [(sha256, size)]
        await store.pull(f"{folder}blobs/{sha256}", None, pieces, keep=True, got=lambda *told: None)
        return await store.join(pieces)

    async def piece(number: int) -> bytes:
        (file,) = [manifest.embed][number:]  # small: a piece
        await blob(file.sha256, file.bytes)
        content: bytes = await store.read(file.sha256, file.bytes)
        return content

    ends = await engine.load_ends(manifest, blob)
    rows = BrowserEnds.rows(bridge, require_table(manifest), piece)
    assert await rows.of(prompt) == await ends.embed(prompt)
    cut = manifest.blocks // 2
    spans = [await engine.load_span(manifest, *s, blob) for s in ((0, cut), (cut, manifest.blocks))]
    caches = [span.open_cache(span.first, span.last, len(prompt) + count) for span in spans]
    new, position, out = prompt, 0, []
    for _ in range(count):
        hidden = await ends.embed(new)
        for span, cache in zip(spans, caches, strict=True):
            hidden = await span.run(cache, hidden, position, len(new))
        position += len(new)
        best = await ends.head(hidden[-manifest.hidden_bytes(1) :], 1.0, 1)
        new = [best.ids[0]]
        out += new
    for span, cache in zip(spans, caches, strict=True):
        cache.close()
        await span.close()
    await ends.close()
    return out
