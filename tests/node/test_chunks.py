"""Chunks of an answer go out at once, or together where they come fast."""

from __future__ import annotations

import asyncio
from typing import Any

from pyodide_node.chunks import ChunkSender
from pyodide_node.inference.generation import Chunk


class StillClock:
    """Time is what the test says."""

    now = 0.0

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


async def test_slow_chunks_go_out_one_by_one_and_fast_ones_together() -> None:
    clock, sent = StillClock(), list[dict[str, Any]]()
    chunks = ChunkSender(clock, sent.append)
    chunks.add(Chunk("a", (1,)))
    clock.now = 1.0
    chunks.add(Chunk("b", (2,)))
    chunks.add(Chunk("c", (3,)))
    chunks.add(Chunk("", (4,)))
    assert [one["ids"] for one in sent] == [[1], [2]]
    chunks.flush()
    assert sent[2:] == [{"text": "c", "ids": [3, 4]}]
    chunks.flush()
    assert len(sent) == 3


async def test_what_waits_goes_out_though_no_more_comes() -> None:
    clock, sent = StillClock(), list[dict[str, Any]]()
    chunks = ChunkSender(clock, sent.append)
    chunks.add(Chunk("a", (1,)))
    chunks.add(Chunk("b", (2,)))
    assert len(sent) == 1
    await asyncio.sleep(0.05)
    assert sent[1] == {"text": "b", "ids": [2]}
