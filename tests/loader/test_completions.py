"""The OpenAI-shaped API, and answers that outlive the worker behind them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.loader.test_consent import YES
from tests.loader.world import World

WORDS = "".join(f" w{n}" for n in range(8))


@pytest.fixture
def node(world: World, page: Any) -> Any:
    """A page whose visitor said yes."""
    page.goto(world.page())
    page.click(YES)
    page.evaluate("KwaaiNet.ready")
    return page


def log(page: Any) -> Any:
    return page.evaluate("KwaaiNet.status().then((status) => status.log)")


def kill_worker(page: Any) -> None:
    """As browsers do with an idle service worker."""
    client = page.context.new_cdp_session(page)
    client.send("ServiceWorker.enable")
    client.send("ServiceWorker.stopAllWorkers")
    client.detach()


def test_a_completion_has_openais_shape(node: Any) -> None:
    request = "{prompt: 'a', model: 'docs', max_tokens: 8, temperature: 0, seed: 3}"
    answer = node.evaluate(f"KwaaiNet.completions.create({request})")
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    assert answer["model"] == "docs"
    assert answer["choices"] == [{"index": 0, "finish_reason": "length", "text": WORDS}]
    assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 8, "total_tokens": 10}
    assert answer["kwaainet"]["ids"] == list(range(8))
    assert answer["kwaainet"]["prompt_ids"] == [101, 102]
    assert answer["kwaainet"]["route"][0]["engine"] == "wasm"
    assert answer["kwaainet"]["decode_tok_s"] == 40
    sent = log(node)["requests"][-1]
    assert sent == {"prompt": "a", "model": "docs", "max_tokens": 8, "temperature": 0, "seed": 3}


def test_a_chat_completion_has_openais_shape(node: Any) -> None:
    messages = "[{role: 'user', content: 'hello'}]"
    answer = node.evaluate(f"KwaaiNet.chat.completions.create({{messages: {messages}}})")
    assert answer["object"] == "chat.completion"
    message = {"role": "assistant", "content": WORDS}
    assert answer["choices"] == [{"index": 0, "finish_reason": "length", "message": message}]


def test_streams_are_async_iterables_of_chunks(node: Any) -> None:
    chunks = node.evaluate(
        """async () => {
          const chunks = [];
          const request = { messages: [{ role: 'user', content: 'hi' }], stream: true };
          const stream = await KwaaiNet.chat.completions.create(request);
          for await (const chunk of stream) chunks.push(chunk);
          return chunks;
        }"""
    )
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == WORDS
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[-2:]] == [None, "length"]
    assert chunks[-1]["kwaainet"]["ids"] == list(range(8))
    routes = [chunk["kwaainet"]["route"] for chunk in chunks[1:-1] if "kwaainet" in chunk]
    assert routes == [chunks[-1]["kwaainet"]["route"]]


def test_errors_carry_code_and_data(node: Any) -> None:
    error = node.evaluate(
        """KwaaiNet.completions.create({ prompt: 'fail' }).catch(
          ({ name, code, message, data }) => ({ name, code, message, data }))"""
    )
    assert error == {
        "name": "KwaaiNetError",
        "code": "NoRoute",
        "message": "nobody serves block 3",
        "data": {"missing": 3},
    }


def test_breaking_off_the_stream_cancels_the_work(node: Any) -> None:
    node.evaluate(
        """async () => {
          const stream = await KwaaiNet.completions.create({ prompt: 'hold 3', stream: true });
          for await (const chunk of stream) break;
        }"""
    )
    assert len(log(node)["cancelled"]) == 1


def test_an_abort_signal_cancels_the_work(node: Any) -> None:
    name = node.evaluate(
        """async () => {
          const abort = new AbortController();
          const { signal } = abort;
          try {
            const request = { prompt: 'hold 3', stream: true, signal };
            for await (const chunk of await KwaaiNet.completions.create(request)) abort.abort();
          } catch (error) {
            return error.name;
          }
        }"""
    )
    assert name == "AbortError"
    assert len(log(node)["cancelled"]) == 1


def test_an_answer_goes_on_when_its_worker_was_killed(node: Any) -> None:
    node.evaluate(
        """() => {
          window.boots = new Set();
          KwaaiNet.on('worker', ({ boot }) => boots.add(boot));
          window.text = '';
          window.answer = (async () => {
            const request = { prompt: 'hold 5', max_tokens: 8, stream: true };
            let last;
            for await (const chunk of await KwaaiNet.completions.create(request)) {
              window.text += chunk.choices[0].text;
              last = chunk;
            }
            return last;
          })();
        }"""
    )
    node.wait_for_function("window.text.endsWith(' w4')")
    kill_worker(node)
    last = node.evaluate("window.answer")
    assert node.evaluate("window.text") == WORDS
    assert last["kwaainet"]["ids"] == list(range(8))
    assert node.evaluate("window.boots.size") == 2
    assert [sorted(each) for each in log(node)["requests"]] == [
        ["max_tokens", "prompt", "resume_ids"]
    ]


def test_status_events_reach_late_listeners(node: Any) -> None:
    value = node.evaluate("new Promise((resolve) => KwaaiNet.on('status', resolve))")
    assert value["peers"][0]["path"] == "webrtc"


def test_limits_are_lowered_never_raised_and_told_again_to_a_new_worker(node: Any) -> None:
    told = node.evaluate("KwaaiNet.limits({ cpu: 90, memory: 256 })")
    assert told == {"cpu": 20, "memory": 256}
    node.evaluate(
        "() => { window.again = new Promise((done) => { let n = 0;"
        " KwaaiNet.on('worker', () => ++n > 1 && done(1)); }); }"
    )
    kill_worker(node)
    node.evaluate("window.again")
    assert log(node)["limits"] == {"cpu": 20, "memory": 256}


def test_stop_stays_stopped_until_start(node: Any) -> None:
    node.evaluate("KwaaiNet.stop()")
    assert node.locator("iframe").count() == 0
    code = "KwaaiNet.completions.create({ prompt: 'a' }).catch((error) => error.code)"
    assert node.evaluate(code) == "NotRunning"
    node.reload()
    node.locator("kwaai-net .pill", has_text="stopped").wait_for()
    assert node.evaluate(code) == "NotRunning"
    node.evaluate("KwaaiNet.start()")
    assert (
        node.evaluate("KwaaiNet.completions.create({ prompt: 'a' })")["choices"][0]["text"] == WORDS
    )
