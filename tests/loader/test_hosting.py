"""Where the worker lives, and what happens when it does not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.loader.test_completions import WORDS
from tests.loader.test_consent import YES
from tests.loader.world import World

HOSTING = "new Promise((resolve) => KwaaiNet.on('worker', ({ hosting }) => resolve(hosting)))"


def test_a_service_worker_is_preferred(world: World, page: Any) -> None:
    page.goto(world.page())
    page.click(YES)
    assert page.evaluate(HOSTING) == "service-worker"


def test_tabs_of_a_site_share_it(world: World, page: Any) -> None:
    page.goto(world.page())
    page.click(YES)
    page.evaluate("KwaaiNet.ready")
    other = page.context.new_page()
    other.goto(world.page())
    other.evaluate("KwaaiNet.ready")
    log = other.evaluate("KwaaiNet.status().then((status) => status.log)")
    assert len(log["boots"]) == 2
    other.close()
    page.wait_for_function("KwaaiNet.status().then((status) => status.log.left === 1)")


def test_without_storage_it_is_a_dedicated_worker(world: World, denied_context: Any) -> None:
    page = denied_context.new_page()
    page.goto(world.page())
    page.click(YES)
    assert page.evaluate(HOSTING) == "dedicated-worker"
    answer = page.evaluate("KwaaiNet.completions.create({ prompt: 'a' })")
    assert answer["choices"][0]["text"] == WORDS


def test_without_a_worker_the_page_is_told(world: World, page: Any) -> None:
    del world.cdn_files["/worker.js"]
    page.goto(world.page())
    page.click(YES)
    assert page.evaluate("KwaaiNet.ready.catch((error) => error.code)") == "EngineError"
    page.locator("kwaai-net .pill", has_text="not running").wait_for()


def test_without_a_frame_the_page_is_told_what_to_allow(world: World, page: Any) -> None:
    url = world.page()
    policy = "<meta http-equiv=Content-Security-Policy content=\"frame-src 'none'\">"
    world.pages["/"] = world.pages["/"].replace("<title>", policy + "<title>")
    page.clock.install()
    page.goto(url)
    page.click(YES)
    page.clock.fast_forward(30_000)
    error = page.evaluate("KwaaiNet.ready.catch(({ code, message }) => ({ code, message }))")
    assert error["code"] == "Unreachable"
    assert f"frame-src {world.cdn}" in error["message"]


@pytest.mark.slow
def test_a_service_worker_that_keeps_dying_is_given_up(world: World, page: Any) -> None:
    page.goto(world.page())
    page.click(YES)
    page.evaluate("KwaaiNet.ready")
    # Every boot gives one token before the next death.
    answer = page.evaluate("KwaaiNet.completions.create({ prompt: 'die', max_tokens: 8 })")
    assert answer["choices"][0]["text"] == WORDS
    assert page.evaluate(HOSTING) == "dedicated-worker"
