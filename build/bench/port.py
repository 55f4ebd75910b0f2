"""The engine's port, from Python and back, against the same session run by a bare loop."""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from build.bench.row import Row

if TYPE_CHECKING:
    from playwright.async_api import Page

    from relay_server.demo.network import DemoNetwork

__all__ = ["port_row"]

_HARNESS = Path(__file__).parents[2] / "tests/runtime"
"""The tests' worker, which runs a file in the tab's own Python with the real bridge."""

_RUN = """([url, source, argument]) => new Promise((resolve) => {
  const worker = new Worker(url);
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = ({ data }) => { worker.terminate(); resolve(data); };
  worker.onerror = (event) => resolve({ error: event.message });
  worker.postMessage({ source, argument }, [port2]);
})"""


async def port_row(network: DemoNetwork, page: Page) -> Row:
    """`page` is of the CDN's origin. Rounds of both in turn, over one session of all blocks."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "harness.js"
        process = await asyncio.create_subprocess_exec(
            "node", str(_HARNESS / "harness.mjs"), str(script)
        )
        if await process.wait():
            raise RuntimeError("the harness could not be bundled")
        await page.context.route("**/harness.js", lambda route: route.fulfill(path=script))
        models = f"{network.cdn}/models/{network.manifest.name}/"
        argument = {"models": models, "engine": "wasm", "count": 128, "rounds": 12}
        source = (_HARNESS / "in_tab/decode.py").read_text()
        answer = await page.evaluate(
            _RUN, [f"{network.cdn}/harness.js", source, json.dumps(argument)]
        )
    if "error" in answer:
        raise RuntimeError(answer["error"])
    got = json.loads(answer["ok"])
    ratios = [bare / ours for ours, bare in zip(got["ours"], got["bare"], strict=True)]
    return Row(
        what="engine step in the node / bare, same session",
        value=statistics.median(ratios),
        unit="x",
        budget=0.9,
        least=True,
        note=f"{statistics.median(got['ours']):.2f} against"
        f" {statistics.median(got['bare']):.2f} ms, all blocks",
    )
