"""A tab against the bare engine in the same browser; how long it takes to be there."""

from __future__ import annotations

import asyncio
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from build.bench.hops import REQUEST, SEEDS, milliseconds_per_token
from build.bench.port import port_row
from build.bench.row import Row
from relay_server.demo.network import DemoNetwork, DemoOptions
from relay_server.demo.visitor import Visitor

if TYPE_CHECKING:
    from playwright.async_api import Page, Route

__all__ = ["browser_rows", "bundle_bare"]

_TOKENS = 96

_WATCH_RESTART = """() => {
  let before;  // listeners are told the latest value first: the worker that is to be killed
  let after;
  window.benchRestart = new Promise((resolve) => {
    KwaaiNet.on('worker', (notice) => {
      before ??= notice.boot;
      if (notice.boot !== before) after = notice;
    });
    KwaaiNet.on('status', (status) => {
      if (after && status.state === 'ready')
        resolve({ at: performance.now(), python_ms: after.ms, snapshot: after.fromSnapshot });
    });
  });
  return performance.now();
}"""


async def bundle_bare(out: Path) -> None:
    script = Path(__file__).with_name("bare.mjs")
    process = await asyncio.create_subprocess_exec("node", str(script), str(out))
    if await process.wait():
        raise RuntimeError("the yardstick could not be bundled")


async def browser_rows(bare: Path) -> tuple[list[Row], float]:
    """Rows, and the milliseconds a token takes in one tab that holds every block."""
    options = DemoOptions(tabs=1, native=0, engine="wasm")
    async with DemoNetwork(options) as network:
        visitor = await network.add_visitor()
        await visitor.agree()
        cold = Row(
            what="cold start: yes → node serving",
            value=visitor.cold_start_ms / 1000,
            unit="s",
            note=f"{network.relay.hub.counters.file_bytes / 1e6:.1f} MB downloaded",
        )
        decode = await _decode(network, visitor, bare)
        alone_ms = await milliseconds_per_token(visitor)
        return [cold, await _restart(network, visitor), *decode], alone_ms


async def _restart(network: DemoNetwork, first: Visitor) -> Row:
    """Kill the service worker, as a browser does, and wait for the node. Median of three
    visitors, each killed once: a worker that dies again and again is not restarted at once."""
    told = [await _kill(first)]
    for _ in range(2):
        visitor = await network.add_visitor()
        await visitor.agree()
        told.append(await _kill(visitor))
    kind = "from a snapshot" if all(one["snapshot"] for one in told) else "without a snapshot"
    python_ms = statistics.median(one["python_ms"] for one in told)
    return Row(
        what="worker killed → node serving again",
        value=statistics.median(one["seconds"] for one in told),
        unit="s",
        budget=1.5,
        note=f"noticed, booted {kind} (Python after {python_ms:.0f} ms), weights cached",
    )


async def _kill(visitor: Visitor) -> dict[str, Any]:
    page = visitor.page
    session = await page.context.new_cdp_session(page)
    await session.send("ServiceWorker.enable")
    killed = await page.evaluate(_WATCH_RESTART)
    await session.send("ServiceWorker.stopAllWorkers")
    told: dict[str, Any] = await page.evaluate("() => benchRestart")
    return {**told, "seconds": (told["at"] - killed) / 1000}


async def _decode(network: DemoNetwork, visitor: Visitor, bare: Path) -> list[Row]:
    """Whole tokens and engine steps, rounds of node and yardstick in turn."""
    page = await visitor.page.context.new_page()
    await _serve_bare(page, bare)
    await page.goto(f"{network.cdn}/bare/")
    folder = f"{network.cdn}/models/{network.manifest.name}/"
    await page.evaluate(
        "([folder, wasm]) => loadBare(folder, wasm)",
        [folder, f"{network.cdn}/bare/ort-wasm-simd-threaded.wasm"],
    )
    ratios, node_rates, bare_rates = [], [], []
    for seed in SEEDS:
        answer = await visitor.ask(lambda text: None, **REQUEST, seed=seed)
        rate = await page.evaluate(
            "([ids, count]) => bareRate(ids, count)", [answer["prompt_ids"], len(answer["ids"])]
        )
        if len(answer["ids"]) > 16:
            node_rates.append(answer["decode_tok_s"])
            bare_rates.append(rate)
            ratios.append(answer["decode_tok_s"] / rate)
    whole = Row(
        what="whole tokens in the node / bare onnxruntime-web",
        value=statistics.median(ratios),
        unit="x",
        note=f"{statistics.median(node_rates):.0f} against {statistics.median(bare_rates):.0f}"
        " tok/s, the same graphs, weights and browser",
    )
    step = await port_row(network, page)
    await page.close()
    return [step, whole]


async def _serve_bare(page: Page, bare: Path) -> None:
    async def give(route: Route) -> None:
        name = route.request.url.rpartition("/")[2]
        if name:
            await route.fulfill(path=bare / name)
        else:
            html = '<!doctype html><script type="module" src="bare.js"></script>'
            await route.fulfill(body=html, content_type="text/html")

    await page.route("**/bare/*", give)
