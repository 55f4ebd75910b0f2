"""What ten thousand nodes cost: counted, so that it holds on any machine."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import expect

from relay_server import Relay, RelaySettings
from relay_server.map.network import PERIOD
from relay_server.settings import default_cdn
from tests.relay_server.client import announcement
from tests.relay_server.map.conftest import Open
from tests.relay_server.map.crowd import crowd, join, manifest
from tests.relay_server.map.viewer import Follower

pytestmark = pytest.mark.asyncio(loop_scope="module")

FEW, MANY, BLOCKS = 200, 10_000, 80
NEW = b"new" + bytes(28)


@pytest_asyncio.fixture(loop_scope="module")
async def relay(tmp_path: Path) -> AsyncIterator[Relay]:
    manifest(tmp_path, "large", BLOCKS)
    settings = RelaySettings(port=0, stun=False, cdn=default_cdn(), models=tmp_path)
    async with Relay(settings) as relay:
        yield relay


@pytest.fixture
def model(tmp_path: Path) -> bytes:
    return hashlib.sha256((tmp_path / "large/manifest.json").read_bytes()).digest()


def calls(work: Callable[[], object]) -> int:
    """Functions that are called, of Python and of C."""
    count = 0

    def note(frame: Any, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


async def test_an_announcement_costs_the_same_among_ten_thousand(
    relay: Relay, model: bytes
) -> None:
    cost = []
    for count in (FEW, MANY):
        crowd(relay, count, model, BLOCKS)
        relay.map.publish()
        join(relay, NEW + b"!", announcement(model, 3, 9), count)
        announcing = calls(lambda: join(relay, NEW + b"!", announcement(model, 4, 9), count + 1))  # noqa: B023
        cost.append((announcing, calls(relay.map.publish)))
    (announcing_few, publishing_few), (announcing_many, publishing_many) = cost
    assert announcing_many == announcing_few
    assert publishing_many == pytest.approx(publishing_few, rel=0.05)


async def test_a_message_is_as_short_for_ten_thousand(relay: Relay, model: bytes) -> None:
    sizes = []
    async with Follower(relay.url) as follower:
        for count in (FEW, MANY):
            crowd(relay, count, model, BLOCKS)
            relay.map.publish()
            while (await follower.next())["totals"]["nodes"] < count:
                pass
            join(relay, NEW + bytes([len(sizes)]), announcement(model, 3, 9))
            relay.map.publish()
            sizes.append(len(json.dumps(await follower.next())))
    assert sizes[1] < 2 * sizes[0]
    assert sizes[1] < 4096


async def test_a_storm_of_announcements_is_a_message_a_second(relay: Relay, model: bytes) -> None:
    async with Follower(relay.url) as follower:
        crowd(relay, MANY, model, BLOCKS)
        await follower.until_nodes(MANY)
    assert follower.received <= 3
    assert PERIOD >= 1


@pytest.mark.browser
async def test_the_page_changes_only_what_changed(
    open_map: Open, relay: Relay, model: bytes
) -> None:
    changes = []
    for count in (FEW, MANY):
        crowd(relay, count, model, BLOCKS)
        relay.map.publish()
        page = await open_map(relay.url)
        nodes = page.locator("#tiles .value").first
        await expect(nodes).to_have_text(f"{len(relay.hub.directory):,}")
        await page.evaluate(
            """() => {
              window.seen = { changes: 0, frames: 0 };
              const chip = document.getElementById('chip');
              new MutationObserver((list) => {
                window.seen.changes += list.filter(({ target }) => !chip.contains(target)).length;
              }).observe(document.body, {
                attributes: true, characterData: true, childList: true, subtree: true,
              });
              const frame = window.requestAnimationFrame;
              window.requestAnimationFrame = (call) => {
                window.seen.frames += 1;
                return frame(call);
              };
            }"""
        )
        join(relay, bytes([count % 251]) * 32, announcement(model, 10, 13), count)
        relay.map.publish()
        await expect(nodes).to_have_text(f"{len(relay.hub.directory):,}")
        seen = await page.evaluate("window.seen")
        assert seen["frames"] == 1
        changes.append(seen["changes"])
        await page.context.close()
    assert max(changes) <= 24  # three cells and how they look; tiles, facts, the engine's row
