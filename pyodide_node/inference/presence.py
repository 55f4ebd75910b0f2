"""This node's place in the swarm: which blocks it takes, says so, and when it moves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from pyodide_node.config import NodeConfig
from pyodide_node.errors import KwaaiNetError
from pyodide_node.hosts.base import Host
from pyodide_node.inference.catalog import Model
from pyodide_node.inference.holding import Holding
from pyodide_node.inference.placement import Served, choose_span, should_move
from pyodide_node.inference.serving import Serving
from pyodide_node.mesh.announcement import ANNOUNCE_EVERY, Announcement, announce
from pyodide_node.mesh.mesh import Mesh

__all__ = ["Presence"]

_SETTLE = (1.0, 3.0)
"""Seconds from a change in the directory to asking whether to move: different at each node, so
that two do not fill the same gap."""


class Presence:
    """Chooses a span, announces it every 120 s and on change, and moves to where it is needed."""

    def __init__(
        self,
        host: Host,
        mesh: Mesh,
        config: NodeConfig,
        model: Model,
        holding: Holding,
        serving: Serving,
        changed: Callable[[], None],
    ) -> None:
        self._host = host
        self._mesh = mesh
        self._config = config
        self._model = model
        self._holding = holding
        self._serving = serving
        self._changed = changed
        self._directory_changed = asyncio.Event()
        self.problem = ""
        """Why no blocks could be loaded when this node last moved."""
        self._tasks: list[asyncio.Task[None]] = []
        self._tie = int.from_bytes(host.keys.public_key[:4], "big")
        self._random = random.Random(host.keys.public_key)  # noqa: S311 - spreads moves

    async def start(self) -> None:
        """Load what the swarm needs most and fits. Raises BudgetExceeded, EngineError, …"""
        room = self._holding.require_room()
        blocks = self._model.manifest.blocks
        await self._holding.load(*choose_span(blocks, room, self._others(), self._tie))
        await self._holding.measure()
        self._tasks = [
            asyncio.create_task(self._announce(), name="announce"),
            asyncio.create_task(self._settle(), name="placement"),
        ]

    def directory_changed(self) -> None:
        self._directory_changed.set()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._mesh.publish(None)

    def _others(self) -> list[Served]:
        said = [entry.announcement for entry in self._mesh.entries(bytes.fromhex(self._model.id))]
        blocks = self._model.manifest.blocks
        return [Served(one.first, one.last, one.throughput) for one in said if one.last <= blocks]

    async def _announce(self) -> None:
        while True:
            await self._announce_now()
            await asyncio.sleep(ANNOUNCE_EVERY)

    async def _announce_now(self) -> None:
        if self._holding.span is None:
            return
        first, last = self._holding.span
        announcement = Announcement(
            model=bytes.fromhex(self._model.id),
            first=first,
            last=last,
            throughput=self._holding.throughput,
            engine=self._host.engine.name,
            host=self._host.kind,
            free_positions=self._holding.free_positions(),
            region=self._config.region,
        )
        signed = await announce(self._host.keys, announcement, self._host.clock.wall())
        self._mesh.publish(signed)
        self._changed()

    async def _settle(self) -> None:
        """Move to where the swarm is weakest, a while after it changed."""
        while True:
            await self._directory_changed.wait()
            self._directory_changed.clear()
            await asyncio.sleep(self._random.uniform(*_SETTLE))
            span = self._holding.span
            if span is not None and self._serving.busy:
                continue
            blocks, others = self._model.manifest.blocks, self._others()
            if span is None:  # the last move failed half-way
                target = choose_span(blocks, self._holding.room() or 1, others, self._tie)
            else:
                mine = Served(*span, self._holding.throughput)
                found = should_move(blocks, mine, others, self._tie)
                if found is None:
                    continue
                target = found
            await self._move(target)

    async def _move(self, target: tuple[int, int]) -> None:
        try:
            async with self._holding.lock:
                self._serving.end_sessions()
                await self._holding.unload()
                await self._holding.load(*target)
            self.problem = ""
        except KwaaiNetError as error:
            self.problem = str(error)
            self._directory_changed.set()  # nothing is held now: try again
        await self._announce_now()
