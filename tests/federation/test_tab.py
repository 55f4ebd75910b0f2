"""A real tab on one relay, a native node on the other, and the tab's relay killed midway.

All steps go through relays: on a data channel nobody would notice at all.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from playwright.async_api import async_playwright

from relay_server.demo.browsers import profile
from relay_server.demo.site import ExampleSite, default_examples
from relay_server.demo.visitor import Visitor
from tests.e2e.test_mishaps import ask_and_disturb, long_answer
from tests.federation.conftest import MODEL, World, eventually


@pytest.mark.browser
@pytest.mark.timeout(240)
async def test_a_tabs_answer_goes_on_when_its_relay_is_killed(world: World) -> None:
    one, two = await world.pair()
    await world.node("bob", two, max_blocks=4, path="relay")
    cdn = f"http://localhost:{urlsplit(one.url).port}"
    attributes = {
        "max-resources": "cpu:100,memory:1024,storage:500",
        "model": MODEL,
        "max-blocks": "4",
        "path": "relay",
    }
    async with (
        ExampleSite(default_examples(), cdn) as site,
        async_playwright() as playwright,
        profile(playwright) as context,
    ):
        tab = await Visitor.open(context, site.page("chat", attributes))
        await tab.agree()
        await eventually(lambda: one.knows(1, records=2))
        await eventually(lambda: two.knows(1, records=2))
        request, calm = await long_answer(tab)
        answer, streamed = await ask_and_disturb(tab, request, one.kill)
        assert answer["ids"] == calm["ids"]
        assert streamed == calm["text"]

        async def moved() -> bool:
            relay = (await tab.status())["relay"]
            return bool(relay["connected"]) and str(urlsplit(two.url).port) in relay["url"]

        await eventually(moved)
        again = await tab.ask(lambda text: None, **request)
        assert again["ids"] == calm["ids"]
