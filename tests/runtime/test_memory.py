"""A tab takes as many blocks as the plan says, and its memory stays under the cap while it does."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from pyodide_node.budget import MEGABYTE
from pyodide_node.hosts.base import EngineName
from pyodide_node.model.footprint import Footprint
from pyodide_node.model.manifest import Manifest
from pyodide_node.model.plan import plan
from tests.runtime.conftest import InTab
from tests.runtime.server import Site
from tests.wide_model import LLAMA_8B, make_wide_model

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(600)]

CAP = 2048
LLAMA_7B_BLOCKS = 32


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("wide") / "wide"
    shape = replace(LLAMA_8B, blocks=LLAMA_7B_BLOCKS)
    return folder, make_wide_model(folder, shape, spans=[1])


@pytest.mark.parametrize("engine", ["wasm-int8", "wasm-int4"])
def test_a_tab_holds_what_the_plan_says_and_stays_under_its_cap(
    engine: EngineName, page: Page, site: Site, in_tab: InTab, wide: tuple[Path, Manifest]
) -> None:
    folder, manifest = wide
    site.folders["models"] = folder.parent
    planned = plan(manifest, [engine], "tab", CAP * MEGABYTE)
    got = in_tab("holding.py", fresh=True, engine=engine, memory=CAP)
    peak = max(map(_peak, _renderers(os.getpid())))
    assert got["blocks"] == planned.blocks
    assert got["engine"] == engine
    assert got["seconds"] > 0
    footprint = Footprint(manifest, engine)
    tabs = -(-LLAMA_7B_BLOCKS // planned.blocks)
    print(
        f"{engine}: file {manifest.layers[0].bytes / 1e6:.1f} MB, loaded"
        f" {footprint.span(0, 1) / 1e6:.1f} MB a block; memory:{CAP} holds {planned.blocks} blocks,"
        f" so {tabs} tabs hold {LLAMA_7B_BLOCKS}; peak {peak / 1e6:.0f} MB, WASM heap"
        f" {got['heap'] / 1e6:.0f} MB; {got['seconds'] / planned.blocks * 1000:.0f} ms a block"
    )
    assert peak <= CAP * MEGABYTE


def _renderers(root: int) -> list[Path]:
    """Of this process's descendants, the tabs; the one in which the worker runs among them."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        if (parent := _status(entry).get("PPid")) is not None:
            children.setdefault(int(parent[0]), []).append(int(entry.name))
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        todo += children.get(pid, [])
        entry = Path(f"/proc/{pid}")
        try:
            if b"--type=renderer" in (entry / "cmdline").read_bytes():
                found.append(entry)
        except OSError:
            continue  # it has just ended
    return found


def _peak(process: Path) -> int:
    """Bytes that this process had of its own at most; without the browser's program, which all of
    its processes share."""
    status = _status(process)
    most, shared = (int(status.get(name, [0])[0]) for name in ("VmHWM", "RssFile"))
    return 1024 * (most - shared)


def _status(process: Path) -> dict[str, Any]:
    try:
        lines = (process / "status").read_text().splitlines()
    except OSError:
        return {}
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
