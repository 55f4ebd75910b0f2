"""A member of the lab: a mesh without a model, in a tab or on CPython.

The same file runs in both worlds: a tab's worker gets it as text. It asks another member for a
slice of a file, as a node that fetches a model does, and tells by which way the answer came.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import asdict, dataclass
from typing import Any

from pyodide_node.hosts.base import Buffer, Host
from pyodide_node.mesh.announcement import Announcement, announce
from pyodide_node.mesh.mesh import Mesh
from pyodide_node.mesh.paths import Path
from pyodide_node.wire import limits
from pyodide_node.wire.messages import Message, PartRequest, PartSlice

__all__ = ["Member"]

SLICE = limits.PART_SLICE
JOINED_BY = 20.0
DIRECT_BY = 2.2 * limits.ICE_DEADLINE
"""Seconds; a second attempt is under way by then."""
SETTLED = 0.3
"""Seconds for the other side's channel to open too."""
ANSWERED_BY = 15.0
MODEL = bytes(32)


@dataclass(frozen=True)
class Answer:
    """How a slice came: `route` is what this side's host knows of the data channel."""

    path: str
    route: str | None
    problem: str = ""


class Member:
    """`host` may lack an engine and a store: a mesh needs neither."""

    def __init__(self, host: Host, relay: str) -> None:
        self._mesh = Mesh(
            host, policy="auto", received=self._received, changed=_nothing, gone=_nothing
        )
        self._mesh.join([relay])
        self._host = host
        self._waiting: dict[int, asyncio.Future[tuple[bytes, Path]]] = {}
        self._asked = 0

    async def joined(self) -> str:
        """This member's key in hex, once it has entered the relay and offered itself: the relay
        passes nothing on to a node that does not."""
        keys, kind = self._host.keys, self._host.kind
        said = Announcement(MODEL, 0, 0, 1.0, "none", kind, 0)
        self._mesh.publish(await announce(keys, said, self._host.clock.wall()))
        await self._mesh.joined(JOINED_BY)
        return keys.public_key.hex()

    async def ask(self, peer: str) -> dict[str, Any]:
        """Ask for a slice by whatever way there is at once, then for another: by the data channel
        once that is open, else by what is left when it was given up."""
        try:
            key = bytes.fromhex(peer)
            await self._slice(key)
            direct = await self._mesh.link(key).direct_open(DIRECT_BY)
            await asyncio.sleep(SETTLED if direct else 0)
            path = await self._slice(key, background=direct)
            return asdict(Answer(path, self.route(peer)))
        except Exception as error:  # told as a row of the table
            return asdict(Answer("none", None, f"{type(error).__name__}: {error}"))

    def route(self, peer: str) -> str | None:
        """What this side knows of the way to a peer that asked it."""
        return self._mesh.link(bytes.fromhex(peer)).route

    async def close(self) -> None:
        await self._mesh.close()

    async def _slice(self, peer: bytes, *, background: bool = False) -> Path:
        token = self._asked = self._asked + 1
        waiting = self._waiting[token] = asyncio.get_running_loop().create_future()
        try:
            request = PartRequest(token, MODEL, token, 0, SLICE)
            self._mesh.send(peer, request, background=background)
            async with asyncio.timeout(ANSWERED_BY):
                content, path = await waiting
        finally:
            del self._waiting[token]
        assert content == slice_of(token), "the slice is not what was asked for"
        way: Path = path
        return way

    def _received(self, peer: bytes, message: Message, payload: Buffer, path: Path) -> None:
        match message:
            case PartRequest(token, _, part, _, _):
                background = path == "webrtc"  # as it came: what is small may be faster elsewhere
                self._mesh.send(peer, PartSlice(token), slice_of(part), background=background)
            case PartSlice(token) if token in self._waiting:
                self._waiting[token].set_result((bytes(payload), path))


def slice_of(part: int) -> bytes:
    """What every member holds as that part."""
    return hashlib.shake_256(part.to_bytes(4, "big")).digest(SLICE)


def _nothing(*_: object) -> None:
    pass
