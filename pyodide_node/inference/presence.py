"""This node's place in the swarm: which blocks it takes, says so, and when it moves."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import Callable

from pyodide_node.config import NodeConfig
from pyodide_node.delivery.catalog import Model
from pyodide_node.delivery.delivery import Delivery
from pyodide_node.errors import BudgetExceeded, KwaaiNetError
from pyodide_node.hosts.base import Host
from pyodide_node.inference.holding import Holding
from pyodide_node.inference.placement import Served, choose_span, should_move
from pyodide_node.inference.serving import Serving
from pyodide_node.mesh.announcement import ANNOUNCE_EVERY, Announcement, announce
from pyodide_node.mesh.mesh import Mesh

__all__ = ["Presence"]

_SETTLE = (1.0, 3.0)
"""Seconds from a change in the directory to asking whether to move: different at each node, so
that two do not fill the same gap."""

_BACKOFF_LAST = 60.0
"""Seconds, at most, added to that after moves that failed."""
_UNMEASURED = 1e-3
"""The throughput of who serves nothing."""
_BELIEVED = 16
"""Times as fast as itself that a node takes another to be: a GPU beside a phone."""


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
        delivery: Delivery,
        changed: Callable[[], None],
    ) -> None:
        self._host = host
        self._mesh = mesh
        self._config = config
        self._model = model
        self._holding = holding
        self._serving = serving
        self._delivery = delivery
        self._changed = changed
        self._announced = 0.0
        self._seeds: list[tuple[int, int]] = []
        self._stale = asyncio.Event()
        self._directory_changed = asyncio.Event()
        self._limits_changed = False
        self._backoff = 0.0
        self._withdrawn = False
        self.problem = ""
        """Why no blocks could be loaded when this node last moved."""
        self._tasks: list[asyncio.Task[None]] = []
        self._tie = int.from_bytes(host.keys.public_key[:4], "big")
        self._random = random.Random(host.keys.public_key)  # noqa: S311 - spreads moves

    async def start(self, *, may_be_empty: bool = False) -> None:
        """Load what the swarm needs most and fits. `may_be_empty`: where no block fits, none is
        loaded, and `problem` says so. Raises BudgetExceeded, EngineError, …"""
        try:
            room = self._holding.require_room()
        except BudgetExceeded as error:
            if not may_be_empty:
                raise
            room, self.problem = 0, f"this node asks and serves no blocks: {error}"
        self._mesh.moved = self._stale.set
        await self._announce_now()  # others that fetch now may swap with this node
        if room:
            await self._holding.load(*self._chosen(room))
            if not self._holding.rate:
                await self._holding.measure()
        self._tasks = [
            asyncio.create_task(self._announce(), name="announce"),
            asyncio.create_task(self._settle(), name="placement"),
        ]

    def directory_changed(self) -> None:
        self._directory_changed.set()

    def limits_changed(self) -> None:
        """The visitor turned a cap: give back at once what is over it, and say the new speed."""
        self._limits_changed = True
        self._directory_changed.set()

    def storage_changed(self) -> None:
        """Files were evicted: say so if others had been told of them."""
        if self._seeds != self._delivery.seeds():
            self._stale.set()

    async def withdraw(self) -> None:
        """Say that nothing is served any more; sessions that are open go on."""
        await self._end_tasks()
        self._withdrawn = True
        await self._announce_now()

    async def close(self) -> None:
        await self._end_tasks()
        self._mesh.moved = lambda: None
        self._mesh.publish(None)

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _others(self) -> list[Served]:
        """What others say that they serve. None is believed to be many times as fast as this node:
        who boasts would drive the honest off the blocks that it does not serve."""
        most = self._holding.throughput * _BELIEVED or math.inf
        said = [entry.announcement for entry in self._mesh.entries(bytes.fromhex(self._model.id))]
        blocks = self._model.manifest.blocks
        return [
            Served(one.first, one.last, min(one.throughput, most))
            for one in said
            if one.last <= blocks
        ]

    async def _announce(self) -> None:
        while True:
            self._stale.clear()
            await self._announce_now()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANNOUNCE_EVERY):
                    await self._stale.wait()

    async def _announce_now(self) -> None:
        """Say what is served, if anything, and which files are here."""
        first, last = (0, 0) if self._withdrawn else self._holding.span or (0, 0)
        self._seeds = self._delivery.seeds()
        announcement = Announcement(
            model=bytes.fromhex(self._model.id),
            first=first,
            last=last,
            throughput=self._holding.throughput or _UNMEASURED,
            engine=self._host.engine.name,
            host=self._host.kind,
            free_positions=self._holding.free_positions(),
            region=self._config.region,
            seeds=self._seeds,
            home=self._mesh.home,
        )
        # Two within a millisecond would have one number, and the second would be stale.
        self._announced = max(self._host.clock.wall(), self._announced + 0.002)
        signed = await announce(self._host.keys, announcement, self._announced)
        self._mesh.publish(signed, announcement.home)
        self._changed()

    async def _settle(self) -> None:
        """Move to where the swarm is weakest, a while after it changed; off what is over a cap,
        at once."""
        while True:
            await self._directory_changed.wait()
            self._directory_changed.clear()
            by_visitor, self._limits_changed = self._limits_changed, False
            if not by_visitor:
                await asyncio.sleep(self._random.uniform(*_SETTLE) + self._backoff)
            if self._holding.over_cap:
                await self._empty()
            span = self._holding.span
            target = self._target()
            if span is None and self._holding.room() < 1:
                self.problem = "no block of the model fits the memory cap"
                self._changed()
            elif target is not None and (span is None or not self._serving.busy):
                await self._move(target)
            elif by_visitor:
                await self._announce_now()

    def _target(self) -> tuple[int, int] | None:
        """Where to move; None when this is the place to be."""
        span = self._holding.span
        if span is None:
            return self._chosen(max(1, self._holding.room()))
        mine = Served(*span, self._holding.throughput)
        return should_move(self._model.manifest.blocks, mine, self._others(), self._tie)

    def _chosen(self, room: int) -> tuple[int, int]:
        return choose_span(self._model.manifest.blocks, room, self._others(), self._tie)

    async def _empty(self) -> None:
        """Hold nothing, and say so."""
        async with self._holding.lock:
            self._serving.end_sessions()
            await self._holding.unload()
            self._holding.choose_engine()
        await self._announce_now()

    async def _move(self, target: tuple[int, int]) -> None:
        try:
            await self._empty()
            async with self._holding.lock:
                await self._holding.load(*target)
            self.problem, self._backoff = "", 0.0
        except KwaaiNetError as error:
            self.problem = str(error)
            self._backoff = min(2 * self._backoff + 1, _BACKOFF_LAST)
            self._directory_changed.set()  # nothing is held now: try again
        await self._announce_now()
