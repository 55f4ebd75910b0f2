"""Nothing happens before a yes; a no is a no."""

from __future__ import annotations

from typing import Any

import pytest

from tests.loader.world import World

DIALOGUE = "kwaai-net dialog"
YES = "role=button[name='Yes, lend it']"
NO = "role=button[name='No thanks']"

STORED = """async () => ({
  local: Object.keys(localStorage), session: Object.keys(sessionStorage), cookie: document.cookie,
  caches: await caches.keys(), databases: (await indexedDB.databases()).map((each) => each.name),
  workers: (await navigator.serviceWorker.getRegistrations()).length,
})"""
STORE = """async () => {
  await caches.open('weights');
  await new Promise((resolve) => {
    indexedDB.open('node').onsuccess = ({ target }) => resolve(target.result.close());
  });
}"""
NOTHING = {"local": [], "session": [], "cookie": "", "caches": [], "databases": [], "workers": 0}


def state(page: Any) -> str:
    return page.evaluate("KwaaiNet.consent.state")


def until(page: Any, wanted: str) -> None:
    page.wait_for_function("(wanted) => KwaaiNet.consent.state === wanted", arg=wanted)


def test_before_an_answer_only_the_tag_was_fetched_and_nothing_stored(
    world: World, page: Any
) -> None:
    page.goto(world.page())
    page.locator(DIALOGUE).wait_for()
    page.wait_for_load_state("networkidle")
    assert world.requests == ["/sovereign-ai.js"]
    assert page.evaluate(STORED) == NOTHING
    assert page.locator("iframe").count() == 0
    # The CDN's own origin, looked at first-hand.
    other = page.context.new_page()
    other.goto(world.cdn + "/frame.html")
    assert other.evaluate(STORED) == NOTHING
    other.close()


def test_the_dialogue_says_who_asks_and_what_is_lent(world: World, page: Any) -> None:
    page.goto(world.page('data-max-resources="cpu:15,memory:512,storage:2500"'))
    text = page.locator(DIALOGUE).inner_text()
    assert f"site{world.number}.localhost" in text
    assert "Up to 15 % of one processor core, 512 MB of memory and 2.5 GB of storage" in text
    assert "IP" in text
    assert "secrets" in text


def test_yes_starts_the_node_and_is_remembered(world: World, page: Any) -> None:
    page.goto(world.page())
    page.click(YES)
    page.evaluate("KwaaiNet.ready")
    assert state(page) == "granted"
    assert "/frame.html" in world.requests
    assert page.evaluate(STORED)["local"] == ["kwaainet-consent"]
    page.reload()
    page.evaluate("KwaaiNet.ready")
    assert page.locator(DIALOGUE).count() == 0


def test_the_node_gets_the_caps_that_the_visitor_saw(world: World, page: Any) -> None:
    page.goto(world.page('data-model="docs" data-relay="wss://r.example"'))
    page.click(YES)
    page.evaluate("KwaaiNet.ready")
    boot = page.evaluate("KwaaiNet.status().then((status) => status.log.boots[0])")
    assert boot["version"] == 1
    assert boot["config"] == {
        "attributes": {
            "model": "docs",
            "relay": "wss://r.example",
            "max-resources": "cpu:20,memory:1024,storage:5000",
        },
        "site": world.site,
        "cdn": world.cdn,
    }


def test_no_is_remembered(world: World, page: Any) -> None:
    page.goto(world.page())
    page.click(NO)
    until(page, "denied")
    page.reload()
    page.wait_for_load_state("networkidle")
    assert state(page) == "denied"
    assert page.locator(DIALOGUE).count() == 0
    assert set(world.requests) == {"/sovereign-ai.js"}


def test_escape_is_not_now_and_stores_nothing(world: World, page: Any) -> None:
    page.goto(world.page())
    page.locator(DIALOGUE).wait_for()
    page.keyboard.press("Escape")
    until(page, "unasked")
    assert page.evaluate(STORED) == NOTHING
    page.reload()
    page.locator(DIALOGUE).wait_for()


def test_a_site_that_asks_for_more_asks_again(world: World, page: Any) -> None:
    page.goto(world.page('data-max-resources="cpu:10"'))
    page.click(YES)
    page.evaluate("KwaaiNet.ready")
    page.goto(world.page('data-max-resources="cpu:11"'))
    page.locator(DIALOGUE).wait_for()
    assert state(page) == "asking"


def test_privacy_control_counts_as_no_until_the_visitor_clicks(world: World, page: Any) -> None:
    page.add_init_script(
        "Object.defineProperty(navigator, 'globalPrivacyControl', { value: true })"
    )
    by_itself = "<script>window.refused = KwaaiNet.consent.ask().catch((e) => e.code)</script>"
    button = "<button onclick='KwaaiNet.consent.ask()'>Join in</button>"
    page.goto(world.page(body=by_itself + button))
    page.wait_for_load_state("networkidle")
    assert state(page) == "denied"
    assert page.locator(DIALOGUE).count() == 0
    assert page.evaluate("window.refused") == "ConsentRequired"
    assert page.evaluate(STORED) == NOTHING
    page.click("text=Join in")
    page.click(YES)
    page.evaluate("KwaaiNet.ready")
    page.reload()
    page.evaluate("KwaaiNet.ready")


def test_manual_asks_only_through_the_api(world: World, page: Any) -> None:
    page.goto(world.page('data-consent="manual"'))
    page.wait_for_load_state("networkidle")
    assert state(page) == "unasked"
    assert page.locator(DIALOGUE).count() == 0
    page.evaluate("void KwaaiNet.consent.ask()")
    page.click(NO)
    until(page, "denied")


def test_a_script_cannot_say_yes(world: World, page: Any) -> None:
    page.goto(world.page())
    page.locator(YES).evaluate("(button) => button.click()")
    assert state(page) == "asking"


def test_withdrawing_removes_frame_worker_and_all_that_was_stored(world: World, page: Any) -> None:
    page.goto(world.page())
    page.click(YES)
    page.evaluate("KwaaiNet.ready")
    frame = page.frame(url="**/frame.html")
    frame.evaluate(STORE)
    assert frame.evaluate(STORED)["caches"] == ["weights"]
    page.evaluate("KwaaiNet.consent.withdraw()")
    assert page.locator("iframe").count() == 0
    assert state(page) == "denied"
    assert page.locator("kwaai-net").count() == 0
    iframe = page.evaluate_handle(
        """(src) => new Promise((resolve) => {
          const frame = Object.assign(document.createElement('iframe'), { src });
          frame.onload = () => resolve(frame);
          document.body.append(frame);
        })""",
        world.cdn + "/frame.html",
    )
    assert iframe.as_element().content_frame().evaluate(STORED) == NOTHING


def test_an_answer_in_one_tab_holds_in_the_other(world: World, page: Any) -> None:
    page.goto(world.page())
    other = page.context.new_page()
    other.goto(world.page())
    other.click(YES)
    page.evaluate("KwaaiNet.ready")
    assert page.locator(DIALOGUE).count() == 0
    other.evaluate("KwaaiNet.consent.withdraw()")
    until(page, "denied")
    page.locator("iframe").wait_for(state="detached")
    other.close()


@pytest.mark.parametrize(
    ("attribute", "says"),
    [
        ('data-max-resources="cpu=20"', 'data-max-resources="cpu:20,memory:1024,storage:5000"'),
        ('data-max-resources="cpu:200"', "cpu:20,memory:1024"),
        ('data-max-resources="gpu:1"', "cpu:20,memory:1024"),
        ('data-consent="auto"', "ask, manual"),
        ('data-meter="top"', "right, left, none"),
    ],
)
def test_what_does_not_parse_is_said_and_the_page_goes_on(
    world: World, page: Any, attribute: str, says: str
) -> None:
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.goto(world.page(attribute, body="<script>window.after = 1</script>"))
    page.locator("kwaai-net .pill").wait_for()
    assert any(says in error for error in errors)
    assert page.evaluate("window.after") == 1
    assert page.evaluate("KwaaiNet.ready.catch((error) => error.code)") == "ConfigError"
    code = "KwaaiNet.completions.create({prompt: 'a'}).catch((error) => error.code)"
    assert page.evaluate(code) == "ConfigError"
    assert page.locator(DIALOGUE).count() == 0
    assert set(world.requests) == {"/sovereign-ai.js"}
    page.click("kwaai-net .pill")
    page.click("role=button[name='Close']")
    assert page.locator("kwaai-net").count() == 0


def test_a_strict_content_security_policy_is_enough(world: World, page: Any) -> None:
    url = world.page()
    policy = (
        f"default-src 'none'; script-src {world.cdn}; frame-src {world.cdn}; "
        "require-trusted-types-for 'script'"
    )
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    world.pages["/"] = world.pages["/"].replace("<title>", meta + "<title>")
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.goto(url)
    assert page.locator(DIALOGUE).evaluate("(it) => getComputedStyle(it).borderRadius") == "20px"
    page.click(YES)
    # The policy forbids the test's own eval; the pill says the same.
    page.locator("kwaai-net .pill", has_text="1 peer").wait_for()
    assert problems == []
