"""What the build promises: pinned inputs, pinned outputs, a small download, no needless work."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
from pathlib import Path

import brotli
import pytest

from tests.runtime.conftest import ROOT

BUDGET = 7_000_000
"""Bytes that a visitor with JSPI downloads, as brotli."""

pytestmark = pytest.mark.timeout(300)


def test_the_lock_file_names_no_server() -> None:
    lock = json.loads((ROOT / "package-lock.json").read_text())
    for name, package in lock["packages"].items():
        assert "resolved" not in package, name
        # Of optional parts for other platforms the version is enough.
        assert name == "" or "integrity" in package or package.get("optional"), name


def test_versions_are_exact() -> None:
    wanted = json.loads((ROOT / "package.json").read_text())["devDependencies"]
    assert all(version[0].isdigit() for version in wanted.values())
    wheels = json.loads((ROOT / "build/runtime/wheels.json").read_text())
    assert all(len(wheel["sha256"]) == 64 for wheel in wheels)


def test_every_runtime_file_is_pinned_by_the_worker(built: Path) -> None:
    worker = (built / "worker.js").read_text()
    table = json.loads((ROOT / "dist/cache/runtime-table.json").read_text())
    for entry in table.values():
        content = (built / "runtime" / entry["file"]).read_bytes()
        assert len(content) == entry["bytes"]
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
        assert entry["sha256"] in worker


def test_compressed_files_are_the_files(built: Path) -> None:
    for name in ("worker.js", "frame.js", "frame.html", "sovereign-ai.js"):
        content = (built / name).read_bytes()
        assert brotli.decompress((built / f"{name}.br").read_bytes()) == content
        assert gzip.decompress((built / f"{name}.gz").read_bytes()) == content


def test_a_visitor_downloads_little(built: Path) -> None:
    sizes = json.loads((built / "sizes.json").read_text())
    # Quality 9 of a development build is an eighth larger than what is released.
    slack = 1.0 if sizes["quality"] == "release" else 1.13
    assert sizes["visitors"]["jspi"] <= BUDGET * slack


def test_a_second_build_changes_nothing(built: Path) -> None:
    def state() -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in built.rglob("*") if file.is_file()}

    before = state()
    subprocess.run(["node", "build/runtime/bundle.mjs"], cwd=ROOT, check=True, capture_output=True)
    changed = {file.name for file, when in state().items() if before.get(file) != when}
    # Others may work on the node's or the page's sources meanwhile; the rest stands still.
    assert not {name for name in changed if name.startswith(("pyodide", "ort", "stdlib", "site"))}
