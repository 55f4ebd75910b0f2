"""A tab takes as many blocks as the plan says, or the embedding and head of a large vocabulary, and
its memory stays under the cap while it does."""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page

from pyodide_node.budget import MEGABYTE
from pyodide_node.hosts.base import EngineName
from pyodide_node.model.ends import EndsFootprint
from pyodide_node.model.footprint import Footprint
from pyodide_node.model.manifest import Manifest
from pyodide_node.model.plan import plan
from tests.runtime.conftest import InTab
from tests.runtime.server import Site
from tests.wide_model import (
    LLAMA_8B,
    LLAMA_8B_ENDS,
    embedded_rows,
    make_wide_model,
    native_head,
)

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(600)]

CAP = 2048
LLAMA_7B_BLOCKS = 32
ASKER_CAP = 1024


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


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("large") / "wide"
    return folder, make_wide_model(folder, LLAMA_8B_ENDS)


@pytest.mark.parametrize("engine", ["wasm-int4", "webgpu"])
def test_an_asker_of_one_gigabyte_holds_a_vocabulary_of_128k(
    engine: EngineName, page: Page, site: Site, in_tab: InTab, large: tuple[Path, Manifest]
) -> None:
    folder, manifest = large
    site.folders["models"] = folder.parent
    planned = plan(manifest, [engine], "tab", ASKER_CAP * MEGABYTE).ends
    assert planned == EndsFootprint(manifest, engine, stored=True)
    ids = np.random.default_rng(1).integers(0, manifest.vocab_size, 500).tolist()
    with Watch() as watch:
        got = in_tab("asking.py", fresh=True, engine=engine, memory=ASKER_CAP, ids=ids)
    print(
        f"{engine}: embedding and head {planned.held / 1e6:.0f} MB, {planned.loading / 1e6:.0f} MB"
        f" while they load; peak {watch.peak / 1e6:.0f} MB, WASM heap {got['heap'] / 1e6:.0f} MB;"
        f" seconds {got['seconds']}"
    )
    assert watch.peak <= ASKER_CAP * MEGABYTE
    rows = embedded_rows(folder, manifest, ids)
    assert got["rows"] == hashlib.sha256(rows.tobytes()).hexdigest()
    best, values, total = native_head(folder, manifest, rows[:1])
    assert got["ids"] == best
    assert got["values"] == pytest.approx(values, abs=1e-4)
    assert got["logsumexp"] == pytest.approx(total, abs=1e-4)


class Watch:
    """The most memory that this process's tabs and their GPU process have at one moment, beyond
    what the latter has at first; sampled, since the two do not peak together."""

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self._gpu = sum(map(_own, _processes(os.getpid(), b"--type=gpu-process")))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            tab = max(map(_own, _renderers(os.getpid())), default=0)
            gpu = sum(map(_own, _processes(os.getpid(), b"--type=gpu-process")))
            self.peak = max(self.peak, tab + max(0, gpu - self._gpu))


def _own(process: Path) -> int:
    """Bytes of this process's own, now."""
    return 1024 * int(_status(process).get("RssAnon", [0])[0])


def _renderers(root: int) -> list[Path]:
    """Of this process's descendants, the tabs; the one in which the worker runs among them."""
    return _processes(root, b"--type=renderer")


def _processes(root: int, kind: bytes) -> list[Path]:
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
            if kind in (entry / "cmdline").read_bytes():
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
