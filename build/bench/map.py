"""What the map costs: the relay by announcement and by update, a viewer by update.

`python -m build.bench.map` prints the rows.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from typing import Final

import msgspec
from playwright.async_api import async_playwright
from rich.console import Console

from build.bench.row import Row, table
from pyodide_node.mesh.announcement import KIND, Announcement
from pyodide_node.wire.records import Record
from relay_server import Relay, RelaySettings
from relay_server.demo.browsers import FLAGS, find_chromium
from relay_server.settings import default_cdn

__all__ = ["map_rows"]

_MODEL: Final = bytes(32)
_BLOCKS: Final = 80
_FEW, _MANY = 100, 10_000
_VIEWERS: Final = 200
_ROUNDS: Final = 2_000
_UPDATES: Final = 20
_WORK: Final = ("ScriptDuration", "LayoutDuration", "RecalcStyleDuration")
"""Seconds of the page's main thread, as Chromium's Performance.getMetrics counts them."""

_EXPECT: Final = """() => { window.updated = new Promise((done) => {
  const observer = new MutationObserver(() => {
    observer.disconnect();
    requestAnimationFrame(() => setTimeout(done));
  });
  const all = { attributes: true, characterData: true, childList: true, subtree: true };
  observer.observe(document.querySelector('main'), all);
}); }"""
"""Settled when the next update is on the screen."""


class _Crowd:
    """Nodes of a model of 80 blocks in a relay's directory, without connections."""

    def __init__(self, relay: Relay, count: int) -> None:
        self._directory = relay.hub.directory
        self._chance = random.Random(count)  # noqa: S311 - the same crowd in every run
        self._keys = [self._chance.randbytes(32) for _ in range(count)]
        self._number = 0
        for key in self._keys:
            self._announce(key)

    def announce(self) -> None:
        """Some node has moved."""
        self._announce(self._chance.choice(self._keys))

    def _announce(self, key: bytes) -> None:
        chance = self._chance
        first = chance.randrange(_BLOCKS)
        last = min(_BLOCKS, first + chance.randint(1, 8))
        engine = chance.choice(("webgpu", "wasm", "onnxruntime"))
        said = Announcement(_MODEL, first, last, chance.uniform(1, 500), engine, "tab", 0)
        self._number += 1
        record = Record(KIND, key, self._number, 0, 2**40, msgspec.msgpack.encode(said))
        self._directory.admit(record, b"", 0)


class _Viewer:
    """A socket of this machine; what is sent to it is read between two updates."""

    buffered = 0

    def __init__(self) -> None:
        self._near, self._far = socket.socketpair()
        self.taken = 0

    def send(self, frame: bytes) -> None:
        self._near.send(frame)

    def read(self) -> None:
        self.taken += len(self._far.recv(1 << 16))

    def ping(self) -> None: ...

    def abort(self) -> None: ...

    def close(self) -> None:
        self._near.close()
        self._far.close()


async def map_rows() -> list[Row]:
    announcing: dict[int, float] = {}
    publishing: dict[int, float] = {}
    size: dict[int, float] = {}
    drawing: dict[int, float] = {}
    for count in (_FEW, _MANY):
        async with Relay(_settings()) as relay:
            crowd = _Crowd(relay, count)
            relay.map.publish()
            begun = time.process_time()
            for _ in range(_ROUNDS):
                crowd.announce()
            announcing[count] = (time.process_time() - begun) / _ROUNDS * 1e6
            relay.map.publish()
            viewers = [_Viewer() for _ in range(_VIEWERS)]
            for number, viewer in enumerate(viewers):
                relay.map.enter(viewer, str(number))
                viewer.read()
                viewer.taken = 0
            spent = 0.0
            for _ in range(_UPDATES):
                crowd.announce()
                begun = time.process_time()
                relay.map.publish()
                spent += time.process_time() - begun
                for viewer in viewers:
                    viewer.read()
            publishing[count] = spent / _UPDATES * 1e3
            size[count] = viewers[0].taken / _UPDATES
            for viewer in viewers:
                relay.map.feed.leave(viewer)
                viewer.close()
            drawing[count] = await _drawing(relay, crowd)

    def against(cost: dict[int, float], unit: str) -> str:
        return f"{cost[_FEW]:.2g} {unit} with {_FEW} nodes"

    return [
        Row(
            what="map: an announcement among 10,000",
            value=announcing[_MANY],
            unit="µs",
            note=f"the relay's processor, decoding included; {against(announcing, 'µs')}",
        ),
        Row(
            what="map: an update for 200 viewers",
            value=publishing[_MANY],
            unit="ms",
            note=f"the relay's processor, sending included, {size[_MANY] / 1000:.1f} kB each;"
            f" {against(publishing, 'ms')}; at most one a second",
        ),
        Row(
            what="map: an update in the page",
            value=drawing[_MANY],
            unit="ms",
            budget=16,
            note=f"script, style and layout in Chromium, 80 blocks; {against(drawing, 'ms')}",
        ),
    ]


async def _drawing(relay: Relay, crowd: _Crowd) -> float:
    """Milliseconds of the page's main thread that one update takes."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        page = await browser.new_page()
        await page.goto(f"{relay.url}/map")
        await page.locator('#chip[data-state="live"]').wait_for()
        session = await page.context.new_cdp_session(page)
        await session.send("Performance.enable")

        async def worked() -> float:
            told = await session.send("Performance.getMetrics")
            return float(sum(one["value"] for one in told["metrics"] if one["name"] in _WORK))

        spent = 0.0
        for update in range(2 * _UPDATES):
            await page.evaluate(_EXPECT)
            before = await worked()
            crowd.announce()
            relay.map.publish()
            await page.evaluate("window.updated")
            if update >= _UPDATES:  # the first ones warm its compiler up
                spent += await worked() - before
        await browser.close()
    return spent / _UPDATES * 1e3


def _settings() -> RelaySettings:
    return RelaySettings(port=0, stun=False, cdn=default_cdn(), map_viewers=2 * _VIEWERS)


def main() -> None:
    Console().print(table(asyncio.run(map_rows())))


if __name__ == "__main__":
    main()
