"""The frame's only door: strangers, forgeries and repeats are not heard."""

from __future__ import annotations

from typing import Any

import pytest

from tests.loader.world import World

SETUP = """async (cdn) => {
  window.frame = Object.assign(document.createElement('iframe'), { src: cdn + '/frame.html' });
  await new Promise((resolve) => { frame.onload = resolve; document.body.append(frame); });
  window.config = { attributes: {}, site: location.origin, cdn };
  window.good = { type: 'kwaainet-attach', version: 1, config };
  window.attach = (message, count = 1) => {
    const channels = Array.from({ length: count }, () => new MessageChannel());
    const heard = [];
    for (const { port1 } of channels) port1.onmessage = ({ data }) => heard.push(data);
    frame.contentWindow.postMessage(message, '*', channels.map(({ port2 }) => port2));
    return heard;
  };
  // Resolves with all that the ports heard once a right Attach was answered by a living worker.
  window.verdict = async (heard) => {
    const notices = attach(good);
    const alive = ({ event }) => event === 'worker';
    while (!notices.some(alive)) await new Promise((turn) => setTimeout(turn, 5));
    return heard;
  };
}"""


@pytest.fixture
def stage(world: World, page: Any) -> Any:
    """A page that embeds the frame without the tag."""
    world.pages["/"] = "<!doctype html><html lang=en><title>Hostile</title><body>"
    page.goto(world.site)
    page.evaluate(SETUP, world.cdn)
    return page


@pytest.mark.parametrize(
    "message",
    [
        "null",
        "'kwaainet-attach'",
        "[]",
        "{ ...good, type: 'attach' }",
        "{ ...good, config: null }",
        "{ ...good, config: { ...config, site: 'https://bank.example' } }",
        "{ ...good, config: { ...config, cdn: location.origin } }",
        "{ ...good, config: { ...config, attributes: { 'max-resources': 100 } } }",
        "{ ...good, config: { ...config, attributes: [] } }",
    ],
)
def test_what_is_not_an_attach_is_not_heard(stage: Any, message: str) -> None:
    assert stage.evaluate(f"verdict(attach({message}))") == []


@pytest.mark.parametrize("count", [0, 2])
def test_exactly_one_port_is_taken(stage: Any, count: int) -> None:
    assert stage.evaluate(f"verdict(attach(good, {count}))") == []


def test_another_version_is_told_to_reload(stage: Any) -> None:
    heard = stage.evaluate("verdict(attach({ ...good, version: 2 }))")
    assert [each["event"] for each in heard] == ["failed"]
    assert "reload" in heard[0]["value"]["message"]


def test_a_second_attach_is_not_heard(stage: Any) -> None:
    heard = stage.evaluate(
        """async () => {
          const { port1, port2 } = new MessageChannel();
          const reply = (id) => new Promise((resolve) => {
            port1.onmessage = ({ data }) => data.id === id && resolve();
            port1.postMessage({ type: 'call', id, method: 'status', params: {} });
          });
          frame.contentWindow.postMessage(good, '*', [port2]);
          await reply(1);
          const second = attach(good);
          await reply(2);
          await reply(3);
          return second;
        }"""
    )
    assert heard == []


def test_a_stranger_window_is_not_heard(stage: Any, world: World) -> None:
    world.pages["/sibling"] = """<!doctype html><script>
      const { port1, port2 } = new MessageChannel();
      parent.heard = [];
      port1.onmessage = ({ data }) => parent.heard.push(data);
      parent.frame.contentWindow.postMessage(parent.good, '*', [port2]);
    </script>"""
    stage.evaluate(
        """() => new Promise((resolve) => {
          const sibling = Object.assign(document.createElement('iframe'), { src: '/sibling' });
          sibling.onload = resolve;
          document.body.append(sibling);
        })"""
    )
    assert stage.evaluate("verdict(window.heard)") == []


def test_the_frame_alone_does_nothing(world: World, page: Any) -> None:
    page.goto(world.cdn + "/frame.html")
    page.wait_for_load_state("networkidle")
    assert world.requests == ["/frame.html", "/frame.js"]


def test_junk_on_the_port_is_not_passed_on(stage: Any) -> None:
    heard = stage.evaluate(
        """async () => {
          const { port1, port2 } = new MessageChannel();
          const heard = [];
          const answered = new Promise((resolve) => {
            port1.onmessage = ({ data }) => { heard.push(data); if (data.id === 3) resolve(); };
          });
          frame.contentWindow.postMessage(good, '*', [port2]);
          const junk = [null, 1, 'boot', { type: 'boot' }, { type: 'rtc-open', link: 1 },
            { type: 'call' }, { type: 'call', id: '1' }, { type: 'leave' }];
          for (const each of junk) port1.postMessage(each);
          port1.postMessage({ type: 'call', id: 3, method: 'status', params: {} });
          await answered;
          return heard.filter(({ type }) => type === 'reply');
        }"""
    )
    assert [(each["id"], each["event"]) for each in heard] == [(3, "done")]
    assert heard[0]["value"]["log"]["left"] == 0
