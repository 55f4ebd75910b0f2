"""Several pages share one service worker: calls, notices and peer connections find their way."""

from __future__ import annotations

import pytest
from playwright.sync_api import BrowserContext, Page

from tests.runtime.frame import Frame
from tests.runtime.server import Site

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


def test_tabs_share_one_node(page: Page, context: BrowserContext, site: Site) -> None:
    first = Frame(page, site)
    one = first.boot("service-worker")
    started = first.started(one)
    second_page = context.new_page()
    second_page.goto(f"{site.origin}/blank")
    second = Frame(second_page, site)
    two = second.boot("service-worker")
    assert second.started(two) == started
    # The same id in two tabs is two calls, and each gets its own answer.
    answers = [first.ask(one, 7, "status"), second.ask(two, 7, "status")]
    assert [answer["id"] for answer in answers] == [7, 7]
    assert answers[0]["value"]["peer"] == answers[1]["value"]["peer"]
    # The node outlives the tab that started it.
    page.close()
    assert second.ask(two, 8, "status")["event"] == "done"


def test_an_id_is_used_once_and_is_a_number(page: Page, site: Site) -> None:
    frame = Frame(page, site)
    client = frame.boot("dedicated-worker")
    frame.started(client)
    for number in (-1, 0.5, 2**32):
        refused = frame.ask(client, number, "status")
        assert refused["error"]["code"] == "ProtocolError"


def test_calls_that_came_early_are_answered(page: Page, site: Site) -> None:
    frame = Frame(page, site)
    client = frame.boot("dedicated-worker")
    assert frame.ask(client, 1, "status")["event"] == "done"


def test_a_stopped_node_starts_again(page: Page, site: Site) -> None:
    frame = Frame(page, site)
    client = frame.boot("service-worker")
    frame.started(client)
    assert frame.ask(client, 1, "stop")["event"] == "done"
    again = frame.boot("service-worker")
    assert frame.ask(again, 1, "status")["event"] == "done"
