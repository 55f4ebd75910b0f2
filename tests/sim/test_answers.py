"""Prompts answered by simulated swarms: always the text that one machine alone would give."""

from __future__ import annotations

from pyodide_node.hosts.simulated import virtual

from .swarm import ask, swarm


@virtual
async def test_alone_it_runs_the_whole_model() -> None:
    async with swarm() as net:
        ada = await net.node("ada")
        answer = await ask(ada)
        assert answer.ids == net.expected(ada, 12)
        assert [hop["path"] for hop in answer.route] == ["local"]


@virtual
async def test_three_nodes_share_the_blocks() -> None:
    async with swarm() as net:
        ada = await net.node("ada", max_blocks=3)
        await net.node("bob", max_blocks=3)
        await net.node("cyd", max_blocks=3)
        await net.covered()
        answer = await ask(ada)
        assert answer.ids == net.expected(ada, 12)
        assert len({hop["peer"] for hop in answer.route}) == 3
