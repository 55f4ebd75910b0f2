"""Milliseconds of a position through the port and through onnxruntime-web alone, in turns."""

from __future__ import annotations

import asyncio
import json
import time
from array import array
from typing import Any

import js  # noqa: TID251

from pyodide_node.hosts.browser.engine import BrowserEngine
from pyodide_node.hosts.browser.loop import quicken
from pyodide_node.hosts.browser.store import BrowserStore
from pyodide_node.model.manifest import decode_manifest


async def main(bridge: Any, argument: str) -> str:
    quicken(asyncio.get_running_loop())
    given = json.loads(argument)
    store = BrowserStore(bridge.store)
    manifest = decode_manifest(await store.fetch(given["models"] + "manifest.json", 1 << 20))

    async def blob(sha256: str, size: int) -> Any:
        url, pieces = f"{given['models']}blobs/{sha256}", [(sha256, size)]
        await store.pull(url, None, pieces, keep=True, got=lambda *told: None)
        return await store.join(pieces)

    engine = BrowserEngine(bridge, given["engine"])
    count, width = given["count"], manifest.hidden_size
    span = await engine.load_span(manifest, 0, manifest.blocks, blob)
    hidden = array("f", [0.5] * width).tobytes()
    ours: list[float] = []
    bare: list[float] = []
    for _ in range(given["rounds"]):
        cache = span.open_cache(0, manifest.blocks, count)
        began = time.perf_counter()
        for position in range(count):
            await span.run(cache, hidden, position, 1)
        ours.append(1000 * (time.perf_counter() - began) / count)
        cache.close()
        piece = span._pieces[0].js
        sizes = (manifest.kv_heads, manifest.head_dim, width, count)
        bare.append(await js.bareDecode(piece, *sizes) / count)
    return json.dumps({"ours": ours, "bare": bare})
