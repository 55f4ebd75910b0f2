"""Every family in every width, in a tab: what transformers or the unsplit model says."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pytest

from build.shards.builder import build
from build.shards.source import open_source
from pyodide_node.hosts.native import UnsplitModel
from pyodide_node.model.manifest import decode_manifest
from tests.build.families import FAMILIES, golden, write_family
from tests.runtime.conftest import InTab
from tests.runtime.server import Site

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

WIDTHS: tuple[Literal[4, 8, 16, 32], ...] = (4, 8, 16, 32)
COUNTS = {"wasm": 24, "wasm-int4": 8, "webgpu": 6}
"""Ids compared."""

ALL = [f"{family}-{bits}" for family in FAMILIES for bits in WIDTHS]
FEW = ["llama3-32", "mistral-4", "qwen2-4", "qwen3-32"]
"""A GPU in software compiles for seconds a model."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("families")
    for family in FAMILIES:
        source = open_source(write_family(root / "checkpoints" / family, family))
        for bits in WIDTHS:
            build(source, root / f"{family}-{bits}", f"{family}-{bits}", bits=bits)
    return root


@pytest.mark.parametrize("engine", sorted(COUNTS))
def test_every_family_says_the_same_in_a_tab(
    engine: str, models: Path, in_tab: InTab, site: Site
) -> None:
    site.folders["families"] = models
    names = FEW if engine == "webgpu" else ALL
    prompts = {name: golden(name.rpartition("-")[0]).prompt_ids for name in names}
    root = f"{site.origin}/families/"
    said = in_tab("families.py", engine=engine, root=root, prompts=prompts, count=COUNTS[engine])
    with ThreadPoolExecutor(1) as other:  # Playwright's own loop runs in this thread
        wanted = other.submit(asyncio.run, references(models, prompts, COUNTS[engine])).result()
    for name, ids in said.items():
        assert ids == wanted[name], name


async def references(
    models: Path, prompts: dict[str, list[int]], count: int
) -> dict[str, list[int]]:
    """At 32 bits what transformers says, else what the whole model of those bits says natively."""
    found: dict[str, list[int]] = {}
    for name, prompt in prompts.items():
        family, _, bits = name.rpartition("-")
        folder = models / name

        async def blob(sha256: str, size: int, folder: Path = folder) -> bytes:
            return (folder / "blobs" / sha256).read_bytes()

        manifest = decode_manifest((folder / "manifest.json").read_bytes())
        whole = await UnsplitModel.load(manifest, blob)
        found[name] = whole.reference_ids(prompt, count)
        if bits == "32":
            assert found[name] == golden(family).ids[:count], name
    return found
