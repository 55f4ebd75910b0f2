"""What only ONNX Runtime can get wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pyodide_node.errors import EngineError
from pyodide_node.hosts.native import NativeEngine, UnsplitModel
from pyodide_node.model.manifest import Manifest, decode_manifest


class Files:
    """Reads blobs; counts them, and hands out `wrong` for one of them."""

    def __init__(self, folder: Path, wrong: dict[str, bytes] | None = None) -> None:
        self.folder = folder
        self.wrong = wrong or {}
        self.asked = 0

    async def __call__(self, sha256: str, size: int) -> bytes:
        self.asked += 1
        return self.wrong.get(sha256) or (self.folder / "blobs" / sha256).read_bytes()


@pytest.fixture
def manifest(shards: Path) -> Manifest:
    return decode_manifest((shards / "manifest.json").read_bytes())


async def test_the_unsplit_model_answers_as_the_manifest_says(
    shards: Path, manifest: Manifest
) -> None:
    model = await UnsplitModel.load(manifest, Files(shards))
    assert model.reference_ids(manifest.reference.prompt_ids, 32) == manifest.reference.ids
    assert model.reference_ids([0], 1) == model.reference_ids([0], 2)[:1]
    for prompt, count in (([], 1), ([0], manifest.context_length)):
        with pytest.raises(EngineError):
            model.reference_ids(prompt, count)


async def test_damaged_files_are_engine_errors(shards: Path, manifest: Manifest) -> None:
    engine = NativeEngine()
    graph = manifest.graph("gpu-fp32", 2).sha256
    for wrong in ({graph: b"not ONNX"}, {manifest.layers[0].sha256: b"short"}):
        with pytest.raises(EngineError):
            await engine.load_span(manifest, 0, 2, Files(shards, wrong))
    for file in (manifest.tokenizer, manifest.head, manifest.graph("gpu-fp32", "embed")):
        with pytest.raises(EngineError):
            await engine.load_ends(manifest, Files(shards, {file.sha256: b"\xff{"}))
    with pytest.raises(EngineError):
        await UnsplitModel.load(
            manifest, Files(shards, {manifest.graphs.whole.sha256: b"not ONNX"})
        )
    engine.close()


async def test_a_span_is_split_once_for_a_border(shards: Path, manifest: Manifest) -> None:
    engine, files = NativeEngine(), Files(shards)
    span = await engine.load_span(manifest, 0, 4, files)
    row = bytes(4 * manifest.hidden_size)
    caches = [span.open_cache(1, 3, 8) for _ in range(4)]
    before = files.asked
    await asyncio.gather(*(span.run(cache, row, 0, 1) for cache in caches))
    asked = files.asked
    # Three sessions of four layers in all, each with a graph and a rotary table.
    assert asked - before == 4 + 3 * 2
    await span.run(caches[0], row, 1, 1)
    assert files.asked == asked
    engine.close()


class Broken:
    def io_binding(self) -> None:
        raise RuntimeError("out of memory")


async def test_a_run_that_fails_half_way_must_be_repeated(shards: Path, manifest: Manifest) -> None:
    """The first session of two has written its keys and values when the second one fails."""
    engine = NativeEngine()
    span = await engine.load_span(manifest, 0, 2, Files(shards))
    row = bytes(4 * manifest.hidden_size)
    cache = span.open_cache(0, 2, 8)
    await span.run(span.open_cache(0, 1, 8), row, 0, 1)  # splits the session
    await span.run(cache, row * 3, 0, 3)
    other = (await span._sessions.covering(0, 2))[1]
    works, other.session = other.session, Broken()
    cache.bindings.clear()
    with pytest.raises(EngineError, match="out of memory"):
        await span.run(cache, row, 1, 1)
    other.session = works
    with pytest.raises(EngineError, match="gap"):
        await span.run(cache, row, 3, 1)
    await span.run(cache, row * 3, 1, 3)
    engine.close()


async def test_the_event_loop_lives_while_the_engine_works(
    shards: Path, manifest: Manifest
) -> None:
    engine = NativeEngine()
    span = await engine.load_span(manifest, 0, 8, Files(shards))
    cache = span.open_cache(0, 8, 64)
    task = asyncio.create_task(span.run(cache, bytes(64 * 4 * manifest.hidden_size), 0, 64))
    turns = 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    await task
    assert turns > 2
    engine.close()
