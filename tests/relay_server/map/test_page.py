"""The page in a real Chromium, beside real nodes that come and go."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from relay_server import Relay, RelaySettings
from relay_server.map.history import Sample
from relay_server.settings import default_cdn
from tests.relay_server.client import Client, announcement
from tests.relay_server.http import get
from tests.relay_server.map.conftest import PHONE, Open
from tests.relay_server.map.crowd import crowd, join, manifest

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

AXE = Path(__file__).parents[3] / "node_modules/axe-core/axe.min.js"
LEVELS = {"none": 0, "thin": 1, "some": 3, "many": 12}


def settings(shelf: Path | None, **more: Any) -> RelaySettings:
    return RelaySettings(port=0, stun=False, cdn=default_cdn(), models=shelf, **more)


def offered(shelf: Path, name: str) -> bytes:
    return hashlib.sha256((shelf / name / "manifest.json").read_bytes()).digest()


@pytest_asyncio.fixture(loop_scope="module")
async def shelf(tmp_path: Path) -> Path:
    manifest(tmp_path, "small", 4)
    manifest(tmp_path, "large", 80)
    return tmp_path


@pytest_asyncio.fixture(loop_scope="module")
async def relay(shelf: Path) -> AsyncIterator[Relay]:
    async with Relay(settings(shelf)) as relay:
        yield relay


def show_every_level(relay: Relay, model: bytes) -> None:
    """In four blocks, each way that a cell can look."""
    for block, nodes in enumerate(LEVELS.values()):
        for number in range(nodes):
            join(relay, bytes([block, number]) * 16, announcement(model, block, block + 1))
    relay.map.publish()


def remember_a_day(relay: Relay) -> None:
    history = relay.map.history
    for minute in range(1440):
        history._samples.append(
            Sample(1_790_000_000 + 60 * minute, minute % 90, 1, 80, 84, 10.0 * minute, 3, 70, 9)
        )


async def cells(page: Page, name: str) -> list[str]:
    card = page.locator("article", has=page.get_by_role("heading", name=name, exact=True))
    return await card.locator(".strip .cell").all_inner_texts()


async def test_nodes_come_and_go(open_map: Open, relay: Relay, shelf: Path) -> None:
    page = await open_map(relay.url)
    headline = page.get_by_role("heading", level=1)
    await expect(headline).to_have_text("The relay is up, and waits for nodes")
    await expect(page.locator("#begin-start")).to_have_text(f"kwaainet start --relay {relay.url}")
    model = offered(shelf, "small")
    async with Client(relay.mesh_url) as one:
        await one.publish(announcement(model, 0, 3))
        await expect(headline).to_have_text("Almost there")
        await expect(page.locator("#begin")).to_be_hidden()
        assert await cells(page, "small") == ["1", "1", "1", "0"]
        await expect(page.locator("#cards")).to_contain_text("Nobody serves block 3.")
        async with Client(relay.mesh_url) as two:
            await two.publish(announcement(model, 2, 4))
            await expect(headline).to_have_text("The network is up")
            await expect(page.locator("#lead")).to_have_text(
                "1 model can be asked: small. 2 nodes run the layers."
            )
            assert await cells(page, "small") == ["1", "1", "2", "1"]
            await expect(page.locator("#relays")).to_contain_text("2 connections")
        await expect(headline).to_have_text("Almost there")
    await expect(page.locator("#begin")).to_be_visible()


async def test_a_lost_feed_is_said_and_taken_up_again(open_map: Open, shelf: Path) -> None:
    async with Relay(settings(shelf)) as relay:
        page = await open_map(relay.url)
        port = relay.port
    chip = page.locator("#chip")
    await expect(chip).to_have_attribute("data-state", "lost")
    await expect(chip).to_contain_text("connection lost")
    await expect(chip).to_contain_text("trying again in")
    await expect(page.locator("#stale")).to_contain_text("What you see is how it was at")
    async with Relay(
        RelaySettings(port=port, stun=False, cdn=default_cdn(), models=shelf)
    ) as relay:
        join(relay, bytes(32), announcement(offered(shelf, "small"), 0, 4))
        await expect(chip).to_have_attribute("data-state", "live", timeout=20_000)
        await expect(page.get_by_role("heading", level=1)).to_have_text("The network is up")
        await expect(page.locator("#stale")).to_be_hidden()


async def test_where_there_is_no_feed_the_page_asks(open_map: Open, shelf: Path) -> None:
    async with Relay(settings(shelf, map_viewers=0)) as relay:
        show_every_level(relay, offered(shelf, "small"))
        page = await open_map(relay.url, state="asking")
        assert await cells(page, "small") == [str(nodes) for nodes in LEVELS.values()]


async def test_charts_show_the_day(open_map: Open, relay: Relay) -> None:
    remember_a_day(relay)
    page = await open_map(relay.url)
    charts = page.locator(".chart:visible")
    await expect(charts).to_have_count(4)
    await expect(charts.first).to_contain_text("lowest 0, highest 89")
    await expect(charts.nth(3)).to_contain_text("lowest 70, highest 70")
    await expect(page.locator(".chart canvas:visible")).to_have_count(4)
    # The newest sample arrives by the feed.
    before = await page.evaluate("document.querySelectorAll('.chart')[3].innerText")
    relay.hub.counters.api_tokens["completion"] += 5000
    relay.map.remember()
    await expect(charts.nth(3)).not_to_have_text(before)
    await expect(charts.nth(3)).to_contain_text("highest 5,000")


DESK = {"width": 1280, "height": 900}


@pytest.mark.parametrize(
    ("viewport", "scheme", "crowded"),
    [
        (PHONE, "light", True),
        (DESK, "dark", True),
        (PHONE, "dark", False),
        (DESK, "light", False),
    ],
)
async def test_it_is_accessible(
    open_map: Open, relay: Relay, shelf: Path, viewport: Any, scheme: str, crowded: bool
) -> None:
    if crowded:
        show_every_level(relay, offered(shelf, "small"))
        for number in range(12):
            id = bytes([number]) * 32
            join(relay, id, announcement(id, 0, 5))
        relay.map.publish()
        remember_a_day(relay)
    page = await open_map(relay.url, viewport=viewport, color_scheme=scheme)
    if crowded:
        await page.locator("#others summary").first.click()
        await page.get_by_text("Blocks as a table").first.click()
        await expect(page.locator("#other-cards article").first).to_be_visible()
        await page.locator(".strip .cell").first.hover()
        shown = set(
            await page.locator(".strip .cell").evaluate_all("c => c.map(_ => _.dataset.level)")
        )
        assert shown == set(LEVELS)
    await page.evaluate(AXE.read_text())
    found = await page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    told = [(v["id"], [node["html"] for node in v["nodes"]]) for v in found["violations"]]
    assert told == []


@pytest.mark.parametrize(("width", "least"), [(360, 24), (320, 20)], ids=["phone", "zoomed"])
async def test_eighty_blocks_fit_a_phone(
    open_map: Open, relay: Relay, shelf: Path, width: int, least: int
) -> None:
    crowd(relay, 2000, offered(shelf, "large"), 80)
    relay.map.publish()
    page = await open_map(relay.url, viewport={"width": width, "height": 640})
    wide = await page.evaluate("document.documentElement.scrollWidth")
    assert wide <= width
    strip = page.locator("article", has_text="80 blocks").locator(".strip")
    boxes = await strip.locator(".cell").evaluate_all(
        "cells => cells.map(cell => [cell.offsetWidth, cell.offsetHeight, cell.scrollWidth])"
    )
    assert len(boxes) == 80
    assert min(min(width, height) for width, height, _ in boxes) >= least
    assert [box for box in boxes if box[2] > box[0]] == []


async def test_what_colours_say_is_said_in_words(open_map: Open, relay: Relay, shelf: Path) -> None:
    show_every_level(relay, offered(shelf, "small"))
    page = await open_map(relay.url)
    strip = page.get_by_role("img", name="Nobody serves block 0. Thin, with one node: block 1.")
    await expect(strip).to_be_visible()


async def test_the_keyboard_reaches_everything(open_map: Open, relay: Relay, shelf: Path) -> None:
    show_every_level(relay, offered(shelf, "small"))
    page = await open_map(relay.url)
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.textContent") == "Skip to the models"
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.textContent") == "Blocks as a table"
    await page.keyboard.press("Enter")
    table = page.get_by_role("table").first
    await expect(table).to_contain_text("0 (missing)")
    await expect(table.get_by_role("row")).to_have_count(5)


async def test_nothing_moves_for_those_who_do_not_want_it(
    open_map: Open, relay: Relay, shelf: Path
) -> None:
    show_every_level(relay, offered(shelf, "small"))
    speed = "getComputedStyle(document.querySelector('.strip .cell')).transitionDuration"
    page = await open_map(relay.url, reduced_motion="reduce")
    assert await page.evaluate(speed) == "0s"


async def test_a_name_is_text_and_nothing_else(open_map: Open, tmp_path: Path) -> None:
    """What strangers announce is not shown at all; what the page shows is never read as HTML."""
    async with Relay(settings(None)) as relay:
        said = announcement()
        fields = {name: getattr(said, name) for name in said.__struct_fields__}
        join(relay, bytes(32), type(said)(**fields | {"engine": "<img src=x onerror=alert(1)>"}))
        page = await open_map(relay.url)
        await expect(page.locator("#engines")).to_contain_text("Something else")
        assert await page.locator("img").count() == 0


async def test_the_page_may_ask_nobody_but_its_relay(relay: Relay) -> None:
    answer = await get(relay.url, "/map")
    policy = dict(
        part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert b"<style" not in answer.body
    assert b"<script>" not in answer.body
    leading = await get(relay.url, "/")
    assert (leading.status, leading.headers["location"]) == (307, "map")
