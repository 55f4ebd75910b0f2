"""Nodes with little memory: they ask with the embedding in storage, and serve what is left."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from pyodide_node.config import ResourceLimits
from pyodide_node.errors import BudgetExceeded
from pyodide_node.hosts.base import EngineName
from pyodide_node.hosts.simulated import virtual
from pyodide_node.inference import own_ends
from pyodide_node.model.ends import EndsFootprint
from pyodide_node.model.footprint import Footprint
from pyodide_node.model.manifest import Manifest

from .swarm import ask, swarm
from .test_private import grant, locked

PROMPT = "the same words again and again, " * 12
"""More than one chunk of positions."""


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is short: the embedding stays in storage."""

    def choose(
        manifest: Manifest, engines: Sequence[EngineName], free: int, *, storage: bool
    ) -> EndsFootprint:
        return EndsFootprint(manifest, engines[0], stored=storage)

    monkeypatch.setattr(own_ends, "choose_ends", choose)


@contextmanager
def crowded() -> Iterator[None]:
    """No block fits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Footprint, "serving", lambda *given: 10**12)
        yield


@pytest.mark.usefixtures("stored")
def test_an_answer_with_the_embedding_in_storage_is_the_same() -> None:
    @virtual
    async def run() -> None:
        async with swarm() as net:
            ada = await net.node("ada")
            answer = await ask(ada)
            assert answer.ids == net.expected(12)
            long = await ask(ada, 4, prompt=PROMPT)
            sha256 = net.model.manifest.embed.sha256
            assert sha256 in await net.host("ada").store.held()
            # Evicted, it is fetched again by the piece.
            await net.host("ada").store.drop(sha256)
            again = await ask(ada, 4, prompt=PROMPT + "so")
            assert len(again.prompt_ids) > len(long.prompt_ids)
            assert (await ask(ada, 4, prompt=PROMPT)).ids == long.ids

    run()


@pytest.mark.usefixtures("stored")
def test_and_so_is_that_of_a_private_model() -> None:
    @virtual
    async def run() -> None:
        async with swarm() as net:
            await grant(net, await locked(net), "ada")
            await net.node("owner")
            ada = await net.node("ada")
            assert (await ask(ada)).ids == net.expected(12)

    run()


@pytest.mark.usefixtures("stored")
def test_where_storage_keeps_nothing_every_piece_is_fetched_when_it_is_needed() -> None:
    @virtual
    async def run() -> None:
        async with swarm() as net:
            limits = ResourceLimits(cpu=100, memory=1000, storage=0)
            ada = await net.node("ada", limits=limits, services=frozenset())
            assert (await ask(ada)).ids == net.expected(12)
            assert await net.host("ada").store.held() == {}
            assert not await net.host("ada").store.has(net.model.manifest.embed.sha256)

    run()


@virtual
async def test_a_node_with_no_room_for_blocks_asks_others_and_says_that_it_serves_none() -> None:
    async with swarm() as net:
        bob = await net.node("bob")
        with crowded():
            ada = await net.node("ada")
        status = await ada.status()
        assert status["span"] is None
        assert "serves no blocks" in status["problem"]
        assert "raise memory" in status["problem"]
        await asyncio.sleep(3)
        answer = await ask(ada)
        assert answer.ids == net.expected(12)
        assert {hop["peer"] for hop in answer.route} == {bob.peer}
        # With more memory it serves.
        ada.set_limits(ResourceLimits(cpu=100, memory=2000, storage=100))
        await asyncio.sleep(10)
        status = await ada.status()
        assert status["span"] is not None
        assert status["problem"] == ""


@virtual
async def test_a_node_that_can_neither_ask_nor_serve_says_what_to_do() -> None:
    async with swarm() as net:
        with crowded(), pytest.raises(BudgetExceeded, match="raise memory"):
            await net.node("ada", limits=ResourceLimits(cpu=100, memory=0, storage=100))
