"""How fast files come, against curl; and who sends them in a swarm of tabs."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from build.bench.row import Row
from pyodide_node.budget import Budget
from pyodide_node.config import ResourceLimits
from pyodide_node.delivery.catalog import Model
from pyodide_node.delivery.delivery import Delivery
from pyodide_node.delivery.storage import Storage
from pyodide_node.hosts.native import native_host
from pyodide_node.hosts.simulated import simulated_model
from pyodide_node.model.footprint import Footprint
from pyodide_node.model.manifest import Manifest, encode_manifest
from pyodide_node.model.pieces import describe
from relay_server.demo.network import DemoNetwork, DemoOptions

__all__ = ["fetch_rows", "swarm_rows"]

_LAYERS, _LAYER = 4, 48 << 20
"""Files of the size of 4-bit layers of a 3B model."""
_ROUNDS = 3
_TABS = 5


async def fetch_rows() -> list[Row]:
    """Rounds of both in turn, from one relay in a process of its own to one disk."""
    with tempfile.TemporaryDirectory(prefix="kwaainet-bench-") as folder:
        place = Path(folder)
        manifest = await asyncio.to_thread(_write_model, place / "models" / "bench")
        async with _relay(place / "models") as url:
            blobs = f"{url}/models/bench/blobs/"
            ours, theirs = [], []
            for number in range(_ROUNDS):
                theirs.append(await _curl(manifest, blobs, place / f"curl{number}"))
                ours.append(await _node(manifest, blobs, place / f"node{number}"))
    size = _LAYERS * _LAYER / 1e6
    rate, curl_rate = size / statistics.median(ours), size / statistics.median(theirs)
    ratio = statistics.median(c / n for c, n in zip(theirs, ours, strict=True))
    return [
        Row(
            what="span fetch, native, against curl",
            value=ratio,
            unit="x",
            note=f"{rate:.0f} against {curl_rate:.0f} MB/s over loopback; {size:.0f} MB, checked"
            " piece by piece and kept",
        )
    ]


async def swarm_rows() -> list[Row]:
    """Visitors come one after another, each with room for the whole model."""
    options = DemoOptions(tabs=_TABS, native=0, engine="wasm", max_blocks=256)
    async with DemoNetwork(options) as network:
        visitors = []
        for _ in range(_TABS):
            visitors.append(await network.add_visitor())
            await visitors[-1].agree()
        statuses = [await visitor.status() for visitor in visitors]
        sent = network.relay.hub.counters.shard_bytes
        layers = {blob.sha256: blob.bytes for blob in network.manifest.layers}
        per_byte = sum(sent[sha256] for sha256 in layers) / sum(layers.values())
    came = sum(status["downloaded"] for status in statuses)
    peers = sum(status["sources"]["peers"] for status in statuses)
    return [
        Row(
            what=f"relay's bytes per byte of shards, {_TABS} tabs",
            value=per_byte,
            unit="x",
            budget=2,
            note="each tab takes every block; the first has nobody to ask",
        ),
        Row(
            what=f"peers' share of the bytes, {_TABS} tabs",
            value=100 * peers / came,
            unit="%",
            note=f"{came / 1e6:.1f} MB in all; {100 * (1 - 1 / _TABS):.0f} % is the most",
        ),
    ]


def _write_model(folder: Path) -> Manifest:
    (folder / "blobs").mkdir(parents=True)
    layers = []
    for _ in range(_LAYERS):
        data = os.urandom(_LAYER)
        blob, root = describe(data)
        assert root is not None
        (folder / "blobs" / blob.sha256).write_bytes(data)
        (folder / "blobs" / str(blob.dag)).write_bytes(root)
        layers.append(blob)
    # Its graphs are never loaded: only its files are fetched.
    model = simulated_model(blocks=_LAYERS)
    for sha256, data in model.blobs.items():
        (folder / "blobs" / sha256).write_bytes(data)
    manifest = msgspec.structs.replace(model.manifest, layers=layers)
    (folder / "manifest.json").write_bytes(encode_manifest(manifest))
    return manifest


@asynccontextmanager
async def _relay(models: Path) -> AsyncIterator[str]:
    arguments = ["relay", "--port", "0", "--no-stun", "--models", str(models)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "relay_server", *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().split()[-1]
    finally:
        process.terminate()
        await process.wait()


async def _curl(manifest: Manifest, blobs: str, folder: Path) -> float:
    await asyncio.to_thread(folder.mkdir)
    arguments = []
    for blob in manifest.layers:
        arguments += ["--output", str(folder / blob.sha256), blobs + blob.sha256]
    begun = time.perf_counter()
    process = await asyncio.create_subprocess_exec("curl", "--silent", "--fail", *arguments)
    if await process.wait():
        raise RuntimeError("curl did not get the files")
    return time.perf_counter() - begun


async def _node(manifest: Manifest, blobs: str, folder: Path) -> float:
    host = await native_host(folder)
    try:
        storage = Storage(
            host, Budget(host.clock, "native", ResourceLimits(storage=2000)), lambda: None
        )
        await storage.open()
        delivery = Delivery(host, Model(manifest, manifest.model_id, (blobs,)), storage)
        begun = time.perf_counter()
        await delivery.bring_span(Footprint(manifest, "onnxruntime"), 0, _LAYERS)
        return time.perf_counter() - begun
    finally:
        host.close()
