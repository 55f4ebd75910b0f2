"""Keyboard, screen reader, small screens, eyes: the dialogue and the meter serve all of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.loader.test_consent import DIALOGUE, NO, YES, until
from tests.loader.world import World

FOCUSED = """() => {
  let at = document.activeElement;
  while (at.shadowRoot?.activeElement) at = at.shadowRoot.activeElement;
  return at.textContent;
}"""

# Lowest contrast (WCAG 2.2, 1.4.3) of any text under the element with the given selector.
CONTRAST = """(selector) => {
  const paint = document.createElement('canvas').getContext('2d');
  const luminance = (colour) => {
    paint.fillStyle = colour;
    paint.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...paint.getImageData(0, 0, 1, 1).data].map((byte) => byte / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (at) => {
    const { backgroundColor } = getComputedStyle(at);
    return /, 0\\)$/.test(backgroundColor) ? behind(at.parentElement) : backgroundColor;
  };
  const top = document.querySelector('kwaai-net').shadowRoot.querySelector(selector);
  const texts = [top, ...top.querySelectorAll('*')].filter((at) =>
    [...at.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
  return Math.min(...texts.map((at) => {
    const [a, b] = [getComputedStyle(at).color, behind(at)].map(luminance);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }));
}"""


def test_the_keyboard_alone_can_answer(world: World, page: Any) -> None:
    page.goto(world.page(body="<button>Elsewhere</button>"))
    dialogue = page.get_by_role("dialog", name="a little of this computer")
    dialogue.wait_for()
    assert page.evaluate(FOCUSED).startswith("Lend ")
    seen = []
    for _ in range(6):
        page.keyboard.press("Tab")
        seen.append(page.evaluate(FOCUSED))
    assert {"No thanks", "Yes, lend it"} <= set(seen)
    assert "Elsewhere" not in seen
    page.locator(YES).focus()
    page.keyboard.press("Enter")
    until(page, "granted")


def test_focus_returns_to_where_it_was(world: World, page: Any) -> None:
    ask = "<button onclick='KwaaiNet.consent.ask()'>Join in</button>"
    page.goto(world.page('data-consent="manual"', body=ask))
    page.get_by_text("Join in").focus()
    page.keyboard.press("Enter")
    page.locator(DIALOGUE).wait_for()
    page.keyboard.press("Escape")
    until(page, "unasked")
    assert page.evaluate(FOCUSED) == "Join in"


def test_yes_and_no_look_the_same(world: World, page: Any) -> None:
    page.goto(world.page())
    look = """(button) => {
      const { width, height } = button.getBoundingClientRect();
      const { color, backgroundColor, borderColor, font } = getComputedStyle(button);
      return [width, height, color, backgroundColor, borderColor, font];
    }"""
    assert page.locator(YES).evaluate(look) == page.locator(NO).evaluate(look)
    assert page.locator(YES).evaluate(look)[1] >= 44


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844), (320, 568)])
def test_the_answers_are_in_sight_on_every_screen(
    world: World, page: Any, width: int, height: int
) -> None:
    page.set_viewport_size({"width": width, "height": height})
    page.goto(world.page())
    for button in (YES, NO):
        box = page.locator(button).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= height
    sideways = page.locator(DIALOGUE).evaluate("(it) => it.scrollWidth > it.clientWidth")
    assert not sideways


def test_no_motion_for_those_who_want_none(world: World, page: Any) -> None:
    page.emulate_media(reduced_motion="reduce")
    page.goto(world.page())
    assert page.locator(DIALOGUE).evaluate("(it) => it.getAnimations().length") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(world: World, page: Any, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.goto(world.page())
    page.locator(DIALOGUE).wait_for()
    assert page.evaluate(CONTRAST, "dialog") >= 4.5
    page.click(YES)
    page.locator("kwaai-net .pill", has_text="1 peer").wait_for()
    page.click("kwaai-net .pill")
    assert page.evaluate(CONTRAST, ".panel") >= 4.5
    assert page.evaluate(CONTRAST, ".pill") >= 4.5


def test_the_meter_speaks_and_stops(world: World, page: Any) -> None:
    page.goto(world.page())
    page.click(YES)
    region = page.get_by_role("region", name="KwaaiNet")
    pill = region.get_by_role("button", name="1 peer", expanded=False)
    pill.wait_for()
    assert region.get_by_role("status").text_content() == "KwaaiNet: ready · 1 peer"
    pill.press("Enter")
    region.get_by_role("button", name="1 peer", expanded=True).wait_for()
    memory = region.get_by_role("progressbar", name="Memory")
    assert memory.evaluate("(bar) => [bar.value, bar.max]") == [310, 1024]
    assert region.locator("dt:text-is('Files given') + dd").text_content() == "13 MB"
    region.get_by_role("button", name="Stop").press("Enter")
    page.locator("iframe").wait_for(state="detached")
    region.get_by_role("button", name="Start").press("Enter")
    region.get_by_role("button", name="1 peer").wait_for()
    region.get_by_role("button", name="Withdraw consent").press("Enter")
    until(page, "denied")
    region.wait_for(state="detached")


def test_the_frame_is_nowhere_in_the_way(world: World, page: Any) -> None:
    page.goto(world.page())
    page.click(YES)
    page.evaluate("KwaaiNet.ready")
    inert, width = page.locator("iframe").evaluate("(it) => [it.inert, it.offsetWidth]")
    assert inert is True
    assert width == 1


def test_without_a_meter_nothing_of_ours_is_left_on_the_page(world: World, page: Any) -> None:
    page.goto(world.page('data-meter="none"'))
    page.click(YES)
    page.evaluate("KwaaiNet.ready")
    assert page.locator("kwaai-net").count() == 0
