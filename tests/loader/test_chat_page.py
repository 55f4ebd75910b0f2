"""The example page: a first visit, an answer, and what it says when things are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.loader.test_completions import WORDS
from tests.loader.test_consent import NO, YES
from tests.loader.world import World

CHAT = Path(__file__).parents[2] / "web_examples/chat"


@pytest.fixture
def chat(world: World, page: Any) -> Any:
    for file in CHAT.iterdir():
        world.pages[f"/{file.name}"] = file.read_text().replace("__CDN__", world.cdn)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(world.site + "/index.html")
    yield page
    assert problems == []


def join(page: Any) -> None:
    page.click(YES)
    page.locator("#chip", has_text="1 other").wait_for()


def ask(page: Any, prompt: str) -> None:
    page.fill("#prompt", prompt)
    page.click("#go")


def test_a_first_visit_ends_in_an_answer(chat: Any) -> None:
    join(chat)
    chat.get_by_role("button", name="A list comprehension is").click()
    assert chat.input_value("#prompt") == "A list comprehension is"
    chat.keyboard.press("Control+Enter")
    chat.locator(".facts", has_text="64 tokens · 40.0 a second").wait_for()
    assert chat.locator(".answer").inner_text().startswith("A list comprehension is" + WORDS)
    # The way of a token: this tab, the one hop of the route, this tab again.
    assert chat.locator("#route li").count() == 3
    assert "Layers 1 to 6 · WebAssembly" in chat.locator("#route li").nth(1).inner_text()
    assert chat.locator("#spoken").text_content()


def test_a_model_that_takes_messages_gets_the_whole_talk(world: World, chat: Any) -> None:
    chat.goto(f"{world.site}/index.html?model=talkative")
    join(chat)
    for count, prompt in enumerate(("Who?", "Why?"), 1):
        ask(chat, prompt)
        chat.locator(".facts", has_text="64 tokens · ").nth(count - 1).wait_for()
    sent = chat.evaluate("KwaaiNet.status().then(({ log }) => log.requests.at(-1).messages)")
    answer = "".join(f" w{n}" for n in range(64))
    assert sent == [
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": answer},
        {"role": "user", "content": "Why?"},
    ]


def test_the_network_is_drawn_before_anybody_asks(chat: Any) -> None:
    join(chat)
    rows = chat.locator("#route li")
    assert rows.count() == 2
    assert "Layers 1 to 3" in rows.nth(0).inner_text()
    assert "Layers 4 to 6 · WebGPU · WebRTC" in rows.nth(1).inner_text()
    assert "21 ms away" in rows.nth(1).inner_text()


def test_no_is_respected_and_taking_part_stays_possible(chat: Any) -> None:
    chat.click(NO)
    chat.locator("#chip", has_text="not joined").wait_for()
    chat.get_by_role("button", name="Take part").click()
    join(chat)


def test_stop_keeps_what_has_come(chat: Any) -> None:
    join(chat)
    ask(chat, "hold 3")
    chat.locator(".theirs", has_text="w2").wait_for()
    chat.get_by_role("button", name="Stop", exact=True).click()
    chat.locator(".facts", has_text="Stopped after 3 tokens").wait_for()
    assert chat.locator(".theirs").text_content() == " w0 w1 w2"


def test_layers_that_nobody_runs_say_what_to_do(chat: Any) -> None:
    join(chat)
    ask(chat, "fail")
    chat.locator(".facts", has_text="Open this page in another tab").wait_for()


def test_limits_are_turned_down_by_sliders(chat: Any) -> None:
    join(chat)
    chat.get_by_role("slider", name="Memory").focus()
    chat.keyboard.press("Home")
    limits = "KwaaiNet.status().then(({ log }) => log.limits)"
    chat.wait_for_function(f"{limits}.then((limits) => limits?.memory === 64)")


def test_stopping_and_withdrawing(chat: Any) -> None:
    join(chat)
    chat.get_by_role("button", name="Stop lending").click()
    chat.get_by_role("button", name="Lend again").click()
    chat.locator("#chip", has_text="1 other").wait_for()
    chat.get_by_role("button", name="Withdraw consent").click()
    chat.locator("#chip", has_text="not joined").wait_for()
    chat.locator("iframe").wait_for(state="detached")


def test_a_relay_that_does_not_answer_is_said(world: World, chat: Any) -> None:
    del world.cdn_files["/sovereign-ai.js"]
    chat.reload()
    chat.locator("#notice-text", has_text="does not answer").wait_for()
    chat.get_by_role("button", name="Try again").wait_for()


def test_the_cdn_may_be_named_in_the_address_of_a_local_page(world: World, chat: Any) -> None:
    for name, text in world.pages.items():
        world.pages[name] = text.replace(world.cdn, "__CDN__")
    chat.goto(f"{world.site}/index.html?cdn={world.cdn}&max-blocks=3")
    join(chat)
    boot = chat.evaluate("KwaaiNet.status().then(({ log }) => log.boots.at(-1))")
    assert boot["config"]["attributes"]["max-blocks"] == "3"
