"""A node as it runs: locked, with its door open, ended by a signal or by `kwaainet stop`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from pyodide_node.config import NodeConfig
from pyodide_node.control import Control
from pyodide_node.errors import LocalError
from pyodide_node.hosts.base import Host
from relay_server.lifecycle.door import Door
from relay_server.lifecycle.health import Health
from relay_server.lifecycle.journal import LOG
from relay_server.lifecycle.lock import locked
from relay_server.lifecycle.places import Places

__all__ = ["DRAIN", "RunningNode"]

DRAIN: Final = 10.0
"""Seconds that answers under way get to end when the node is stopped."""

Hear = Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class RunningNode:
    """`run` it once. `hear` gets every notice of the node."""

    places: Places
    host: Host
    config: NodeConfig
    hear: Hear
    health: Health
    _began: float = field(default_factory=time.time)
    _status: dict[str, Any] = field(default_factory=dict)
    _failure: str = ""
    _control: Control = field(init=False)
    _door: Door = field(init=False)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _hurry: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Until it is stopped. Raises LocalError when the node could not start, or is no longer
        healthy and `health` says that it should end then."""
        self._control = Control(self.host, self.config, self._take)
        own = {"process": self._process, "stop": self._stop, "health": self._set_health}
        self._door = Door(self.places.socket, self._control.deliver, own)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled)
        with locked(self.places.lock):
            async with self._door:
                ending = asyncio.create_task(self._end_when_told(), name="ending")
                try:
                    await self._control.run()
                finally:
                    ending.cancel()
                    await asyncio.gather(ending, return_exceptions=True)
        if self._failure:
            raise LocalError(self._failure)

    def _signalled(self) -> None:
        """The first signal lets answers end, the second does not wait for them."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    async def _end_when_told(self) -> None:
        await self._stopping.wait()
        if not self._failure:
            LOG.info("stopping: no new answers; those under way have %.0f s", DRAIN)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN):
                    drained = asyncio.create_task(self._control.core.drain(), name="drain")
                    hurried = asyncio.create_task(self._hurry.wait(), name="hurry")
                    try:
                        await asyncio.wait((drained, hurried), return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        drained.cancel()
                        hurried.cancel()
        self._control.stop()

    # --- what the node says -----------------------------------------------------------------

    def _take(self, message: str) -> None:
        said = json.loads(message)
        if said["type"] == "notice":
            self._notice(said)
        self._door.take(said)

    def _notice(self, notice: dict[str, Any]) -> None:
        match notice["event"]:
            case "failed":
                self._fail(notice["value"]["message"])
            case "status":
                self._status = notice["value"]
                unwell = self.health.look(self._status, self.host.clock.monotonic())
                if unwell and not self._stopping.is_set():
                    self._fail(unwell)
        self.hear(notice)

    def _fail(self, why: str) -> None:
        self._failure = why
        self._stopping.set()

    # --- what callers ask of the process ------------------------------------------------------

    async def _process(self, params: Any) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "began": self._began,
            "arguments": sys.argv[1:],
            "health": self.health.told(),
            "node": self._status,
        }

    async def _stop(self, params: Any) -> bool:
        self._stopping.set()
        return True

    async def _set_health(self, params: Any) -> dict[str, Any]:
        self.health.watching = bool(params)
        return self.health.told()
