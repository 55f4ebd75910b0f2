"""Things that happen to tabs in the middle of an answer: the words stay the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from relay_server.demo.report import reference_ids
from relay_server.demo.visitor import Visitor

from .conftest import Start, eventually

PROMPT = "If the file does not exist,"
LONG = 100
"""Tokens: over a second of answering, whatever the machine."""


async def long_answer(asker: Visitor) -> tuple[dict[str, Any], dict[str, Any]]:
    """A request whose answer leaves time to disturb it, and that answer, undisturbed."""
    for seed in range(50):
        request = {
            "prompt": PROMPT,
            "max_tokens": 160,
            "temperature": 1.0,
            "top_k": 50,
            "seed": seed,
        }
        calm = await asker.ask(lambda text: None, **request)
        if len(calm["ids"]) >= LONG:
            return request, calm
    raise AssertionError(f"no answer of {LONG} tokens in 50")


async def ask_and_disturb(
    asker: Visitor, request: dict[str, Any], disturb: Callable[[], Awaitable[None]]
) -> tuple[dict[str, Any], str]:
    """The answer, disturbed after a few words, and the text as it streamed."""
    streamed: list[str] = []
    disturbing: list[asyncio.Task[None]] = []

    def told(text: str) -> None:
        streamed.append(text)
        if len(streamed) == 3:
            disturbing.append(asyncio.ensure_future(disturb()))

    answer = await asker.ask(told, **request)
    assert disturbing, "the answer ended before it could be disturbed"
    await disturbing[0]
    return answer, "".join(streamed)


async def kill_workers(visitor: Visitor) -> None:
    """What the browser does to a service worker when it wants its memory back."""
    session = await visitor.page.context.new_cdp_session(visitor.page)
    await session.send("ServiceWorker.enable")
    await session.send("ServiceWorker.stopAllWorkers")
    await session.detach()


async def served(visitor: Visitor) -> int:
    """Positions that this visitor has computed for others."""
    return int((await visitor.status())["served"]["tokens"])


@pytest.mark.parametrize("what", ["tab", "browser"])
async def test_a_stage_closed_mid_answer(start: Start, what: str) -> None:
    network = await start(tabs=3, max_blocks=4)
    asker, *others = network.visitors
    request, calm = await long_answer(asker)
    before = [await served(other) for other in others]

    async def close_one_at_work() -> None:
        # The route is chosen by measured time: only now is it known who is on it.
        now = [await served(other) for other in others]
        busiest = max(range(len(others)), key=lambda index: now[index] - before[index])
        assert now[busiest] > before[busiest], "the answer did not leave the asker's tab"
        page = others[busiest].page
        await (page.close() if what == "tab" else page.context.close())

    answer, streamed = await ask_and_disturb(asker, request, close_one_at_work)
    # A closed tab's service worker lives on for a while and answers through the relay.
    assert answer["reroutes"] >= 1 or what == "tab"
    assert answer["ids"] == calm["ids"]
    assert answer["text"] == calm["text"] == streamed


async def test_a_stage_whose_worker_is_killed(start: Start) -> None:
    network = await start(tabs=2)
    asker, stage = network.visitors
    request, calm = await long_answer(asker)
    answer, streamed = await ask_and_disturb(asker, request, lambda: kill_workers(stage))
    assert answer["text"] == calm["text"] == streamed
    status = await stage.status()
    assert status["state"] == "ready"


async def test_the_askers_own_worker_killed(start: Start) -> None:
    network = await start(tabs=2)
    asker = network.visitors[0]
    request, calm = await long_answer(asker)
    answer, streamed = await ask_and_disturb(asker, request, lambda: kill_workers(asker))
    assert streamed == calm["text"]
    assert answer["text"] == calm["text"]
    assert answer["ids"] == calm["ids"]


async def test_a_killed_worker_comes_back_by_itself(start: Start) -> None:
    network = await start(tabs=1)
    visitor = network.visitors[0]
    boots: list[dict[str, Any]] = []
    await visitor.page.expose_function("toldBoot", lambda boot: boots.append(boot))
    await visitor.page.evaluate("() => { KwaaiNet.on('worker', toldBoot) }")
    await kill_workers(visitor)

    async def back() -> bool:
        again = len({boot["boot"] for boot in boots}) > 1  # the first is the one that was killed
        return again and (await visitor.status())["state"] == "ready"

    await eventually(back)
    assert boots[-1]["fromSnapshot"]
    assert len(network.relay.hub.directory) == 1


async def test_storage_denied_the_node_works_all_the_same(start: Start) -> None:
    network = await start(tabs=2, storage=False)
    asker = network.visitors[0]
    status = await asker.status()
    assert not status["budget"]["storage"]["persistent"]
    greedy = {"prompt": PROMPT, "max_tokens": 24, "temperature": 0}
    answer = await asker.ask(lambda text: None, **greedy)
    assert len(answer["route"]) == 2
    assert answer["ids"] == await reference_ids(network, answer["prompt_ids"], 24)


async def test_the_relay_lost_and_found_again(start: Start) -> None:
    network = await start(tabs=2, path="webrtc")
    asker = network.visitors[0]
    request, calm = await long_answer(asker)
    hub = network.relay.hub

    async def cut() -> None:
        for node in list(hub):
            node.socket.abort()

    answer, streamed = await ask_and_disturb(asker, request, cut)
    assert answer["ids"] == calm["ids"]
    assert streamed == calm["text"]

    async def all_back() -> bool:
        return len(hub.directory) == 2

    await eventually(all_back)
