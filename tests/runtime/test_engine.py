"""The engine in a tab against ONNX Runtime on CPython, over the same shards."""

from __future__ import annotations

import asyncio
import base64
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyodide_node.hosts.expansion import widened_rows
from pyodide_node.hosts.native.engine import NativeEngine
from pyodide_node.model.manifest import Manifest, decode_manifest
from pyodide_node.model.table import Table
from tests.runtime.conftest import InTab
from tests.runtime.server import Site

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

CAPACITY = 40
TOLERANCE = 1e-4
"""Relative to the largest value."""
COARSER = {"wasm-int8": 0.1, "webgpu-fp16": 0.02}
"""Of engines that round activations."""

# first, last, position, count: a prompt, single steps, back and on again with other values, a
# chunk onto a filled cache, and then a part of the span, which makes the engine split.
SCRIPT = [
    (1, 4, 0, 9),
    (1, 4, 9, 1),
    (1, 4, 10, 1),
    (1, 4, 5, 3),
    (1, 4, 8, 1),
    (2, 4, 0, 6),
    (1, 4, 9, 4),
    (2, 4, 3, 2),
    (1, 2, 0, 3),
]


@pytest.fixture
def manifest(model: Path) -> Manifest:
    return decode_manifest((model / "manifest.json").read_bytes())


@pytest.fixture
def steps(manifest: Manifest) -> list[tuple[int, int, int, bytes]]:
    random = np.random.default_rng(7)
    return [
        (first, last, position, random.normal(0, 1, (count, manifest.hidden_size))
            .astype("<f4").tobytes())
        for first, last, position, count in SCRIPT
    ]  # fmt: skip


@pytest.mark.parametrize("engine", ["wasm", "wasm-int8", "wasm-int4", "webgpu", "webgpu-fp16"])
def test_spans_rewinds_and_splits_agree_with_native(
    engine: str, in_tab: InTab, steps: Any, manifest: Manifest, model: Path
) -> None:
    wanted = native(steps, manifest, model)
    encoded = [[f, last, p, base64.b64encode(h).decode()] for f, last, p, h in steps]
    got = in_tab("engine.py", engine=engine, span=[1, 4], capacity=CAPACITY, steps=encoded)
    if got["engine"] == "none":
        pytest.skip("this machine's WebGPU has no shader-f16")
    assert got["engine"] == engine
    for number, (mine, theirs) in enumerate(zip(got["outputs"], wanted, strict=True)):
        a = np.frombuffer(base64.b64decode(mine), "<f4")
        b = np.frombuffer(theirs, "<f4")
        tolerance = COARSER.get(engine, TOLERANCE)
        assert np.abs(a - b).max() <= tolerance * np.abs(b).max(), f"step {number}"


@pytest.mark.parametrize(("engine", "count"), [("wasm", 32), ("wasm-int4", 8), ("webgpu", 4)])
def test_greedy_ids_are_the_references(
    engine: str, count: int, in_tab: InTab, manifest: Manifest
) -> None:
    got = in_tab("engine.py", engine=engine, generate=count)
    assert got["ids"] == manifest.reference.ids[:count]
    ids = manifest.reference.prompt_ids
    plain = ids[1:] if ids[0] == manifest.bos_id else ids
    assert got["encoded"] == plain
    assert got["decoded"] == manifest.reference.prompt


@pytest.mark.parametrize("engine", ["wasm", "webgpu"])
def test_browsers_without_jspi_run_the_other_build(
    engine: str, in_tab: InTab, site: Site, manifest: Manifest
) -> None:
    site.instead["/harness.js"] = b"delete WebAssembly.Suspending;" + site.instead["/harness.js"]
    got = in_tab("engine.py", engine=engine, generate=4)
    assert got["ids"] == manifest.reference.ids[:4]
    fetched = " ".join(site.requests)
    assert "ort-asyncify" in fetched
    assert "ort-jspi" not in fetched


def native(steps: Any, manifest: Manifest, model: Path) -> list[bytes]:
    async def blob(sha256: str, size: int) -> bytes:
        return (model / "blobs" / sha256).read_bytes()

    async def run() -> list[bytes]:
        engine = NativeEngine()
        span = await engine.load_span(manifest, 1, 4, blob)
        caches: dict[Any, Any] = {}
        outputs = []
        for first, last, position, hidden in steps:
            if (first, last) not in caches:
                caches[first, last] = span.open_cache(first, last, CAPACITY)
            count = len(hidden) // manifest.hidden_bytes(1)
            outputs.append(await span.run(caches[first, last], hidden, position, count))
        engine.close()
        return outputs

    # Playwright's own loop runs in this thread.
    with ThreadPoolExecutor(1) as other:
        return other.submit(asyncio.run, run()).result()


@pytest.mark.parametrize("bits", [4, 8, 16, 32])
def test_rows_are_the_same_numbers_as_natively(bits: int, in_tab: InTab) -> None:
    random, columns, rows = np.random.default_rng(bits), 96, 50
    weights = random.bytes(rows * columns * bits // 8)
    if bits > 8:
        kind = "<f4" if bits == 32 else "<f2"
        weights = random.normal(size=(rows, columns)).astype(kind).tobytes()
    every_half = np.arange(rows * columns // 32, dtype="<u2") * 200  # none of them infinite
    scales = every_half.tobytes() if bits <= 8 else b""
    table = Table(rows, columns, bits, 0, len(weights) if scales else None, 1000)
    file = base64.b64encode(weights + scales).decode()
    (found,) = in_tab("rows.py", tables=[{**asdict(table), "file": file}])
    assert base64.b64decode(found) == widened_rows(weights, scales, table)
