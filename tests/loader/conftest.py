"""A real Chromium, the real tag and frame, and a fake worker behind them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from relay_server.demo.browsers import FLAGS, STORAGE_ALLOWED, STORAGE_DENIED, find_chromium
from tests.loader.world import Server, World

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="package")
def cdn_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tag and frame as they are shipped, built from the working tree."""
    esbuild = ROOT / "node_modules/.bin/esbuild"
    out = tmp_path_factory.mktemp("cdn")
    for name, entry in {"sovereign-ai": "tag", "frame": "frame"}.items():
        options = ["--bundle", "--format=iife", "--target=es2022", "--minify"]
        source = ROOT / f"loader/{entry}/index.ts"
        command = [esbuild, source, *options, f"--outfile={out / name}.js", "--log-level=warning"]
        subprocess.run(command, check=True)
    return {
        "/sovereign-ai.js": out / "sovereign-ai.js",
        "/frame.js": out / "frame.js",
        "/frame.html": ROOT / "loader/frame/frame.html",
        "/worker.js": Path(__file__).with_name("fake_worker.js"),
    }


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def world(server: Server, cdn_files: dict[str, Path]) -> World:
    return server.world(dict(cdn_files))


@pytest.fixture(scope="package")
def playwright() -> Iterator[Any]:
    with sync_playwright() as playwright:
        yield playwright


def launch(playwright: Any, profile: Path, preferences: dict[str, Any]) -> Any:
    (profile / "Default").mkdir(parents=True)
    (profile / "Default/Preferences").write_text(json.dumps(preferences))
    return playwright.chromium.launch_persistent_context(
        profile, executable_path=find_chromium(), headless=False, args=FLAGS
    )


@pytest.fixture(scope="package")
def context(playwright: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One browser for all tests: hosts of their own keep them apart."""
    context = launch(playwright, tmp_path_factory.mktemp("allowed") / "p", STORAGE_ALLOWED)
    yield context
    context.close()


@pytest.fixture
def denied_context(playwright: Any, context: Any, tmp_path: Path) -> Iterator[Any]:
    """A browser that denies all storage, and with it service workers."""
    context = launch(playwright, tmp_path / "p", STORAGE_DENIED)
    yield context
    context.close()


@pytest.fixture
def page(context: Any) -> Iterator[Any]:
    page = context.new_page()
    page.set_default_timeout(10_000)
    yield page
    page.close()
