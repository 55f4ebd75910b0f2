"""One Chromium, one server and one harness worker for all tests of the runtime."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, Playwright, sync_playwright

from relay_server.demo.browsers import FLAGS, SOFTWARE_WEBGPU, STORAGE_ALLOWED, find_chromium
from tests.runtime.server import Site, serve

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "dist/models/kwaai-docs"

RUN_IN_TAB = """
([source, argument, fresh]) => new Promise((resolve) => {
    if (fresh) {
        window.harness?.terminate();
        window.harness = undefined;
    }
    window.harness ??= new Worker('/harness.js');
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = ({ data }) => resolve(data);
    window.harness.onerror = (event) => resolve({ error: event.message });
    window.harness.postMessage({ source, argument }, [port2]);
})
"""


# Not for the whole run: while it lasts, no other test of this thread can run an event loop.
@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="package")
def built() -> Path:
    """dist/cdn, made by the build."""
    subprocess.run(["node", "build/runtime/bundle.mjs"], cwd=ROOT, check=True, capture_output=True)
    return ROOT / "dist/cdn"


@pytest.fixture(scope="package")
def harness(built: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """harness.ts, bundled as the worker is."""
    outfile = tmp_path_factory.mktemp("harness") / "harness.js"
    subprocess.run(["node", "tests/runtime/harness.mjs", outfile], cwd=ROOT, check=True)
    return outfile.read_bytes()


@pytest.fixture(scope="package")
def model() -> Path:
    """The default model's shards."""
    command = [sys.executable, "-m", "build.shards", "build/model/kwaai-docs", str(MODEL)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return MODEL


@pytest.fixture
def site(built: Path, model: Path) -> Iterator[Site]:
    """A fresh copy of what the CDN serves, that a test may damage."""
    with_port = Site({"": built, "models": model.parent})
    server = serve(with_port)
    yield with_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def context(playwright: Playwright, tmp_path: Path) -> Iterator[BrowserContext]:
    """A browser with a profile of its own."""
    profile = tmp_path / "profile"
    (profile / "Default").mkdir(parents=True)
    (profile / "Default/Preferences").write_text(json.dumps(STORAGE_ALLOWED))
    opened = playwright.chromium.launch_persistent_context(
        profile,
        executable_path=find_chromium(),
        args=[*FLAGS, *SOFTWARE_WEBGPU],
        # Playwright's own defaults would switch off what the tests are about.
        ignore_default_args=["--disable-features", "--headless=old"],
    )
    yield opened
    opened.close()
    shutil.rmtree(profile, ignore_errors=True)


@pytest.fixture
def page(context: BrowserContext, site: Site) -> Page:
    opened = context.new_page()
    opened.goto(f"{site.origin}/blank")
    return opened


InTab = Callable[..., Any]


@pytest.fixture
def in_tab(page: Page, site: Site, harness: bytes) -> InTab:
    """Run `main(bridge, argument)` of a file in in_tab/, in a worker; arguments are JSON.

    A `fresh` one is a new worker; else the same serves the whole test.
    """
    site.instead["/harness.js"] = harness

    def run(name: str, *, fresh: bool = False, **arguments: Any) -> Any:
        source = (Path(__file__).parent / "in_tab" / name).read_text()
        argument = json.dumps({"models": f"{site.origin}/models/kwaai-docs/", **arguments})
        answer = page.evaluate(RUN_IN_TAB, [source, argument, fresh])
        assert "error" not in answer, answer["error"]
        return json.loads(answer["ok"])

    return run
