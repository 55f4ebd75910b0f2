"""Two frames connect by WebRTC; the fake worker only carries their signals across."""

from __future__ import annotations

import json
from typing import Any

from tests.loader.test_consent import YES
from tests.loader.world import World


def test_two_tabs_exchange_messages_in_order(world: World, page: Any) -> None:
    page.goto(world.page())
    page.click(YES)
    page.evaluate("KwaaiNet.ready")
    other = page.context.new_page()
    other.goto(world.page())
    other.evaluate("KwaaiNet.ready")
    answer = page.evaluate("KwaaiNet.completions.create({ prompt: 'pair' })")
    report = json.loads(answer["choices"][0]["text"])
    # 300 messages of 4 KiB pass the high-water mark: the rest waited and none was lost.
    assert report["received"] == [list(range(300))] * 2
    assert report["told"][0] > 1024 * 1024
    assert report["told"][-1] <= 256 * 1024
    assert report["reasons"][0] == "closed by this node"
    assert report["reasons"][1]  # in the words of the browser
    other.close()


def test_a_peer_that_talks_nonsense_closes_the_link_with_a_reason(world: World, page: Any) -> None:
    page.goto(world.page())
    page.click(YES)
    page.evaluate("KwaaiNet.ready")
    answer = page.evaluate("KwaaiNet.completions.create({ prompt: 'lonely' })")
    assert "setRemoteDescription" in answer["choices"][0]["text"]
