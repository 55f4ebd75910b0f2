"""Gives parts of the model's files to other nodes, within a share of the visitor's upload."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import Callable

from pyodide_node.delivery.parts import Parts
from pyodide_node.delivery.storage import Storage
from pyodide_node.errors import StoreError, Unreachable
from pyodide_node.hosts.base import Buffer, Host
from pyodide_node.mesh.mesh import Mesh
from pyodide_node.mesh.paths import Path
from pyodide_node.wire import limits
from pyodide_node.wire.messages import (
    Message,
    PartRefused,
    PartRequest,
    PartsHeld,
    PartSlice,
    PartsQuery,
)

__all__ = ["Seeding"]

_READ = 4
"""Parts held in memory while their slices are asked for."""
_PEERS = 64
"""Peers that may wait for slices at once."""
_TELL_EVERY = 0.1
"""Seconds between two tellings of what is here; more often would cost more than it saves."""
_CURIOUS = 2.0
"""Seconds for which who asked what is here is told of changes without asking again."""
_BURST = 0.5
"""Seconds of the upload share that may be sent at once after a pause."""


class Seeding:
    """`rate` is in bytes a second; 0 gives nothing. `soon()` are the parts on their way here.

    Peers take turns, a slice each. `busy()` tells of answers being computed: the share is then
    a quarter, so that their steps go first.
    """

    def __init__(
        self,
        host: Host,
        mesh: Mesh,
        model: bytes,
        parts: Parts,
        storage: Storage,
        rate: float,
        *,
        soon: Callable[[], list[int]],
        busy: Callable[[], bool],
    ) -> None:
        self._host = host
        self._mesh = mesh
        self._model = model
        self._parts = parts
        self._storage = storage
        self._rate = rate
        self._soon = soon
        self._busy = busy
        self._waiting: OrderedDict[bytes, deque[PartRequest]] = OrderedDict()
        self._read: OrderedDict[str, bytes] = OrderedDict()
        self._held: tuple[int, bytes] = (-1, b"")
        self._curious: dict[bytes, float] = {}
        self._telling: asyncio.TimerHandle | None = None
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.sent = 0
        """Bytes given to others."""

    def start(self) -> None:
        if self._rate > 0:
            self._task = asyncio.create_task(self._send(), name="seed")

    def take(self, peer: bytes, message: Message, path: Path) -> None:
        """A question of a peer; only those that came directly are answered."""
        if path != "webrtc" or self._task is None:
            return
        match message:
            case PartsQuery(model) if model == self._model:
                self._curious[peer] = self._host.clock.monotonic() + _CURIOUS
                self._answer(peer, PartsHeld(model), self._bitmaps())
            case PartRequest(token, model):
                queue = self._waiting.get(peer, deque())
                part = self._parts.part(message.part) if model == self._model else None
                if part is None or not self._storage.has(part.sha256):
                    self._answer(peer, PartRefused(token, "missing"))
                elif len(queue) >= limits.PART_REQUESTS or (
                    not queue and len(self._waiting) >= _PEERS
                ):
                    self._answer(peer, PartRefused(token, "busy"))
                else:
                    queue.append(message)
                    self._waiting[peer] = queue
                    self._work.set()

    def changed(self) -> None:
        """Something came or is on its way: who fetches now should know."""
        if self._curious and self._telling is None:
            loop = asyncio.get_running_loop()
            self._telling = loop.call_later(_TELL_EVERY, self._tell)

    def left(self, peer: bytes) -> None:
        self._waiting.pop(peer, None)
        self._curious.pop(peer, None)

    async def close(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
        self._curious.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def _tell(self) -> None:
        self._telling = None
        now = self._host.clock.monotonic()
        self._curious = {peer: until for peer, until in self._curious.items() if until > now}
        for peer in self._curious:
            self._answer(peer, PartsHeld(self._model), self._bitmaps())

    def _bitmaps(self) -> bytes:
        if self._held[0] != self._storage.version:
            self._held = self._storage.version, self._parts.bitmap(self._storage.has)
        return self._held[1] + self._parts.numbers(self._soon())

    async def _send(self) -> None:
        """One slice at a time, each peer in its turn, at the visitor's rate."""
        clock = self._host.clock
        free_at = clock.monotonic()
        while True:
            if not self._waiting:
                self._work.clear()
                await self._work.wait()
            peer, queue = self._waiting.popitem(last=False)
            request = queue.popleft()
            if queue:
                self._waiting[peer] = queue  # at the end: others have their turn
            now = clock.monotonic()
            free_at = max(free_at, now - _BURST)
            if free_at > now:
                await asyncio.sleep(free_at - now)
            free_at += request.length / (self._rate / 4 if self._busy() else self._rate)
            await self._give(peer, request)

    async def _give(self, peer: bytes, request: PartRequest) -> None:
        content = await self._content(request.part)
        end = request.offset + request.length
        if content is None or end > len(content):
            self._answer(peer, PartRefused(request.token, "missing"))
            return
        piece = memoryview(content)[request.offset : end]
        if self._answer(peer, PartSlice(request.token), piece):
            self.sent += request.length

    async def _content(self, number: int) -> bytes | None:
        part = self._parts.part(number)
        if part is None:
            return None
        if part.sha256 not in self._read:
            try:
                content = await self._host.store.read(part.sha256, part.size)
            except StoreError:
                content = None
            if content is None:
                self._storage.forget(part.sha256)
                return None
            self._storage.touch(part.sha256)
            self._read[part.sha256] = content
            if len(self._read) > _READ:
                self._read.popitem(last=False)
        self._read.move_to_end(part.sha256)
        return self._read[part.sha256]

    def _answer(self, peer: bytes, message: Message, payload: Buffer = b"") -> bool:
        with contextlib.suppress(Unreachable):  # it takes answers too slowly, or has left
            self._mesh.send(peer, message, payload, background=True)
            return True
        return False
