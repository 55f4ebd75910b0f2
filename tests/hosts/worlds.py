"""One set of handles on two worlds, so that one suite holds both hosts to the same contract.

A test is `@conforms async def test_x(world: World)`. It runs once on the simulated host, on a
virtual loop, and once on the native one, against real sockets, files and sessions. When it ends,
nothing may be left running, and no callback may have failed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from pyodide_node.hosts.base import BlobReader, Buffer, Host
from pyodide_node.hosts.simulated import run_virtual
from pyodide_node.model.manifest import Manifest

__all__ = ["TIMEOUT", "RelaySide", "World", "conforms", "run_native"]

TIMEOUT = 20.0
"""Seconds that a test may wait for anything; real ones on the native host."""


class RelaySide(Protocol):
    """A relay's end of a socket."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def send(self, data: Buffer) -> None: ...

    async def close(self) -> None: ...


class World(Protocol):
    """What tests may do to a world beside using its hosts' ports."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def exact(self) -> bool:
        """Whether a result has the same bits however the positions were cut into steps."""

    async def host(self, name: str = "ada", *, denied: bool = False) -> Host:
        """The host of that name, made again at each call; `denied` leaves it no storage."""

    async def relay(self, handler: Callable[[RelaySide], Awaitable[None]]) -> str: ...

    def publish(self, path: str, content: bytes, *, ranges: bool = True) -> str:
        """Serve `content`, whole or by ranges; returns its URL."""

    def nowhere(self, scheme: str) -> str:
        """A URL where nobody listens."""

    def full(self, host: Host) -> contextlib.AbstractContextManager[None]:
        """Let nothing larger than a few kilobytes be written."""

    def damage(self, host: Host, sha256: str) -> None:
        """Change a held blob where it lies."""

    @property
    def blob(self) -> BlobReader:
        """Reads the files of `manifest`."""

    async def close(self) -> None: ...


Test = Callable[[World], Coroutine[Any, Any, None]]


def run_native(main: Coroutine[Any, Any, None]) -> None:
    """Run on a real loop; fails when a callback failed or a task is left over."""

    async def watched() -> None:
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: failures.append(what))
        async with asyncio.timeout(TIMEOUT):
            await main
        # aioice's check loop sees only at its next turn, 20 ms later, that it was closed.
        if left := asyncio.all_tasks() - {asyncio.current_task()}:
            _, left = await asyncio.wait(left, timeout=1.0)
        assert not left, left
        assert not failures, failures

    asyncio.run(watched())


def conforms(test: Test) -> Callable[..., None]:
    """Make a plain test of `test`, once for each world."""

    @pytest.mark.parametrize("kind", ["simulated", "native"])
    def run(kind: str, tmp_path: Path, shards: Path) -> None:
        async def main() -> None:
            world = await make_world(kind, tmp_path, shards)
            try:
                await test(world)
            finally:
                await world.close()

        (run_virtual if kind == "simulated" else run_native)(main())

    run.__name__, run.__doc__, run.__module__ = test.__name__, test.__doc__, test.__module__
    return run


async def make_world(kind: str, folder: Path, shards: Path) -> World:
    # Here and not above: each world's module imports this one.
    from tests.hosts.native_world import NativeWorld
    from tests.hosts.simulated_world import SimulatedWorld

    return SimulatedWorld() if kind == "simulated" else NativeWorld(folder, shards)


@contextlib.contextmanager
def swapped(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give `owner` another attribute for a while."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
