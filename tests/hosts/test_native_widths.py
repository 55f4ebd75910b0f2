"""8-bit weights on CPython: expanded to fp32 they say what they say as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from build.shards.builder import build
from build.shards.source import open_source
from pyodide_node.hosts.base import EngineName
from pyodide_node.hosts.native import UnsplitModel
from pyodide_node.hosts.native.engine import NativeEngine
from pyodide_node.model.footprint import native_engines
from pyodide_node.model.manifest import Manifest
from pyodide_node.model.plan import plan
from tests.build.families import golden, write_family

COUNT = 12


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("widths")
    source = open_source(write_family(folder / "checkpoint", "qwen2"))
    return folder, build(source, folder, "qwen2", bits=8).manifest


@pytest.mark.parametrize("name", ["onnxruntime-fp32", "onnxruntime"])
async def test_an_8_bit_model_says_the_same(
    shards: tuple[Path, Manifest], name: EngineName
) -> None:
    folder, manifest = shards

    async def blob(sha256: str, size: int) -> bytes:
        return (folder / "blobs" / sha256).read_bytes()

    assert name in native_engines(manifest)
    prompt = golden("qwen2").prompt_ids
    wanted = (await UnsplitModel.load(manifest, blob)).reference_ids(prompt, COUNT)
    engine = NativeEngine()
    engine.use(name)
    ends = await engine.load_ends(manifest, blob)
    spans = [await engine.load_span(manifest, *part, blob) for part in ((0, 2), (2, 6))]
    caches = [span.open_cache(span.first, span.last, len(prompt) + COUNT) for span in spans]
    ids, new, position = [], prompt, 0
    while len(ids) < COUNT:
        hidden = await ends.embed(new)
        for span, cache in zip(spans, caches, strict=True):
            hidden = await span.run(cache, hidden, position, len(new))
        position += len(new)
        new = [(await ends.head(hidden[-manifest.hidden_bytes(1) :], 1.0, 1)).ids[0]]
        ids += new
    engine.close()
    assert ids == wanted


def test_they_are_expanded_where_they_fit(shards: tuple[Path, Manifest]) -> None:
    _, manifest = shards
    engines = native_engines(manifest)
    assert plan(manifest, engines, "native", 1 << 30).engine == "onnxruntime-fp32"
