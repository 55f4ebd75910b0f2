"""An answer under way, made on another thread, as its reader sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from pyodide_node.errors import Cancelled, NoRoute
from pyodide_node.inference.asker import Answer
from pyodide_node.inference.generation import Chunk
from relay_server.api.loop_thread import LoopThread
from relay_server.api.running import Running, Silence


@pytest.fixture
async def thread() -> AsyncIterator[LoopThread]:
    thread = LoopThread("test")
    await thread.start()
    yield thread
    await thread.stop()


async def for_ever() -> None:
    await asyncio.Event().wait()


async def test_pieces_arrive_in_order_and_then_the_end(thread: LoopThread) -> None:
    running = Running()
    answer = Answer(model="m", prompt_ids=[1, 2], ids=[])

    async def work() -> None:
        running.told(answer)
        for number in range(3):
            answer.ids.append(number)
            running.add(Chunk(str(number), (number,)))
            running.told(answer)

    running.follow(thread.submit(work()))
    await running.begun()
    pieces = [await running.next() for _ in range(4)]
    assert [piece.text if piece else None for piece in pieces] == ["0", "1", "2", None]
    assert running.whole
    await running.ended()
    assert running.tokens == (2, 3)


async def test_a_failure_is_raised_where_it_is_read(thread: LoopThread) -> None:
    async def fails() -> None:
        raise NoRoute("nobody serves block 3")

    running = Running()
    running.follow(thread.submit(fails()))
    with pytest.raises(NoRoute):
        await running.begun()
    await running.ended()
    assert running.tokens == (0, 0)


async def test_a_time_out_over_there_is_no_silence_here(thread: LoopThread) -> None:
    async def fails() -> None:
        raise TimeoutError

    running = Running()
    running.follow(thread.submit(fails()))
    with pytest.raises(TimeoutError):
        await running.next(60)


async def test_silence_is_said_and_the_rest_is_not_lost() -> None:
    running = Running()
    with pytest.raises(Silence):
        await running.next(0)
    running.add(Chunk("late", (1,)))
    piece = await running.next(60)
    assert piece is not None
    assert piece.text == "late"


async def test_cancelling_reaches_the_other_thread(thread: LoopThread) -> None:
    running, begun, cancelled = Running(), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def work() -> None:
        loop.call_soon_threadsafe(begun.set)
        try:
            await for_ever()
        finally:
            loop.call_soon_threadsafe(cancelled.set)

    running.follow(thread.submit(work()))
    await begun.wait()
    running.cancel()
    await cancelled.wait()
    await running.ended()
    with pytest.raises(Cancelled):
        await running.next()


async def test_what_still_runs_when_the_thread_stops_is_cancelled() -> None:
    thread, running = LoopThread("test"), Running()
    await thread.start()
    running.follow(thread.submit(for_ever()))
    await thread.stop()
    with pytest.raises(Cancelled):
        await running.next()
