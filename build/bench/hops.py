"""What one more hop costs a token: the same blocks in one tab, two tabs and four."""

from __future__ import annotations

import statistics
from typing import Literal

from build.bench.row import Row
from relay_server.demo.network import DemoNetwork, DemoOptions
from relay_server.demo.visitor import Visitor

__all__ = ["REQUEST", "hop_rows", "milliseconds_per_token"]

REQUEST = {
    "prompt": "This section describes how to",
    "max_tokens": 96,
    "temperature": 1.0,
    "top_k": 50,
}
"""Sampled, because a greedy answer may be short; the seeds are the same everywhere."""

SEEDS = range(1, 6)
STAGES = (2, 4)


async def milliseconds_per_token(asker: Visitor) -> float:
    """Median over answers, each weighed by nothing but its own decode rate."""
    rates = []
    for seed in SEEDS:
        answer = await asker.ask(lambda text: None, **REQUEST, seed=seed)
        if len(answer["ids"]) > 16:
            rates.append(answer["decode_tok_s"])
    return float(1000 / statistics.median(rates))


async def hop_rows(alone_ms: float) -> list[Row]:
    """`alone_ms` is a token's time in one tab that holds every block."""
    rows = []
    for path in ("webrtc", "relay"):
        for stages in STAGES:
            rows.append(await _row(path, stages, alone_ms))
    return rows


async def _row(path: Literal["webrtc", "relay"], stages: int, alone_ms: float) -> Row:
    async with DemoNetwork(DemoOptions(tabs=stages, native=0, engine="wasm", path=path)) as network:
        for _ in range(stages):
            await (await network.add_visitor()).agree()
        await network.covered()
        asker = network.visitors[0]
        await asker.ask(lambda text: None, **REQUEST, seed=0)  # connections come up
        together_ms = await milliseconds_per_token(asker)
    return Row(
        what=f"one more hop, {stages} tabs by {path}",
        value=(together_ms - alone_ms) / (stages - 1),
        unit="ms/token",
        budget=8,
        note=f"{together_ms:.1f} ms a token against {alone_ms:.1f} in one tab",
    )
