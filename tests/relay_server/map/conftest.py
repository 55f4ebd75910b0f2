"""One real Chromium for the tests of the map's page; each test has a context of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from relay_server.demo.browsers import FLAGS, find_chromium

Open = Callable[..., Awaitable[Page]]

PHONE = {"width": 360, "height": 740}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def open_map(browser: Browser) -> AsyncIterator[Open]:
    """`page = await open_map(relay.url, viewport=PHONE)`. Whatever a page complains of, and
    whatever it asks of others than its relay, fails the test."""
    complaints: list[str] = []
    async with AsyncExitStack() as stack:

        async def open_map(url: str, state: str = "live", **options: Any) -> Page:
            context = await browser.new_context(**options)
            stack.push_async_callback(context.close)
            page = await context.new_page()
            page.set_default_timeout(15_000)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda said: _listen(said.type, said.text))
            page.on("request", lambda request: _same(request.url, url))
            await page.goto(url)
            await page.locator(f'#chip[data-state="{state}"]').wait_for()
            return page

        def _listen(kind: str, text: str) -> None:
            # A relay that is away, or full, is what some tests are about.
            if kind == "error" and "WebSocket" not in text and "ERR_CONNECTION" not in text:
                complaints.append(text)

        def _same(asked: str, url: str) -> None:
            if urlsplit(asked).netloc != urlsplit(url).netloc and not asked.startswith("data:"):
                complaints.append(f"asked {asked}")

        yield open_map
    assert complaints == []
