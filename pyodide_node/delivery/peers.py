"""Parts of a model's files from other nodes: who has which, and slices of them.

Only by direct paths: a relay is there to make nodes meet, not to carry what they hold.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass

from pyodide_node.delivery.parts import is_set
from pyodide_node.errors import RemoteError, StageFailed, Unreachable
from pyodide_node.hosts.base import Buffer, Host
from pyodide_node.mesh.mesh import Mesh
from pyodide_node.wire import limits
from pyodide_node.wire.messages import (
    Message,
    PartRefused,
    PartRequest,
    PartsHeld,
    PartSlice,
    PartsQuery,
)

__all__ = ["Missing", "Peers"]

_LINKED = 8
"""Peers asked at once: more would burden everybody in a large swarm."""
_ASK_EVERY = 0.5
"""Seconds between questions to one peer while this node fetches."""
_SEALED_BY, _ANSWER_BY = 1.0, 3.0
"""Seconds in which a peer must be reached by the relay, and in which it must have answered by the
direct path: so long others are not asked."""
_FRESH = 3.0
"""Seconds for which an answer is believed: who says nothing more has nothing more to give."""
_SLICE_BY = 5.0
"""Seconds for one slice; who needs longer is passed over."""
_BANNED = 600.0
_SLOW = 30.0
"""Seconds without a peer that lied, and without one that stalled."""
_WINDOW = 4
"""Slices of one part under way: at 50 ms of round trip that is what a data channel moves."""


class Missing(StageFailed):
    """The peer does not have this part (any more), or is busy."""


@dataclass(slots=True)
class _Known:
    """What a peer said, and when."""

    have: bytes
    soon: bytes
    at: float


class Peers:
    """`changed()` is called when a peer has said what it has. The model has `parts` parts, which go
    by their numbers."""

    def __init__(
        self, host: Host, mesh: Mesh, model: bytes, parts: int, changed: Callable[[], None]
    ) -> None:
        self._host = host
        self._mesh = mesh
        self._model = model
        self._bytes = (parts + 7) // 8
        self._changed = changed
        self._known: dict[bytes, _Known] = {}
        self._shunned: dict[bytes, float] = {}
        self._silent: dict[bytes, float] = {}
        """Who has not answered, and until when nobody waits for it."""
        self._asked: dict[int, tuple[bytes, int, asyncio.Future[bytes]]] = {}
        self._tokens = itertools.count(1)
        self._fetching = 0
        self._begun = 0.0
        self._asking: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Something is to be fetched: keep asking who has what, until as many `end`."""
        self._fetching += 1
        if self._asking is None:
            self._begun = self._now()
            self._asking = asyncio.create_task(self._ask(), name="ask peers for parts")

    def end(self) -> None:
        self._fetching -= 1
        if not self._fetching and self._asking is not None:
            self._asking.cancel()
            self._asking = None

    def able(self) -> list[bytes]:
        """Who has answered lately and may be asked for parts."""
        return [peer for peer in self._known if self._live(peer)]

    def has(self, peer: bytes, number: int) -> bool:
        known = self._known.get(peer)
        return known is not None and is_set(known.have, number)

    def count(self, number: int) -> int:
        """How many have this part."""
        return sum(is_set(self._known[peer].have, number) for peer in self.able())

    def soon(self, number: int) -> bool:
        """Whether somebody is fetching this part from elsewhere, and will have it."""
        return any(is_set(self._known[peer].soon, number) for peer in self.able())

    def awaited(self) -> bool:
        """Whether peers that have not answered yet may still do so in good time."""
        now = self._now()
        waited = now - self._begun
        waiting = False
        for peer in self._candidates():
            if self._live(peer) or self._silent.get(peer, 0.0) > now:
                continue
            if waited > _ANSWER_BY or (waited > _SEALED_BY and self._mesh.path(peer) is None):
                self._silent[peer] = now + _SLOW
            else:
                waiting = True
        return waiting

    def shun(self, peer: bytes, *, lied: bool) -> None:
        """Ask this peer no more for a while."""
        self._shunned[peer] = self._now() + (_BANNED if lied else _SLOW)
        self._known.pop(peer, None)

    async def part(self, peer: bytes, number: int, size: int) -> bytes:
        """Raises Missing; Unreachable when the peer left or stalls."""
        parts = bytearray(size)
        slices = iter(range(0, size, limits.PART_SLICE))

        async def fetch() -> None:
            for at in slices:
                length = min(limits.PART_SLICE, size - at)
                parts[at : at + length] = await self._slice(peer, number, at, length)

        tasks = [asyncio.ensure_future(fetch()) for _ in range(_WINDOW)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return bytes(parts)

    def take(self, peer: bytes, message: Message, payload: Buffer) -> None:
        """What a peer answered; what nobody asked for is dropped."""
        match message:
            case PartsHeld(model) if model == self._model and self._asking is not None:
                both, half = bytes(payload), self._bytes
                if len(both) == 2 * half:  # anything else is of another model, or made up
                    self._silent.pop(peer, None)
                    self._known[peer] = _Known(both[:half], both[half:], self._now())
                    self._changed()
            case PartSlice(token) | PartRefused(token):
                asked = self._asked.get(token)
                if asked is None or asked[0] != peer or asked[2].done():
                    return
                if isinstance(message, PartRefused):
                    asked[2].set_exception(Missing("a peer refuses a part", reason=message.code))
                elif len(payload) == asked[1]:
                    asked[2].set_result(bytes(payload))

    def left(self, peer: bytes) -> None:
        self._known.pop(peer, None)
        for asked, _, answer in self._asked.values():
            if asked == peer and not answer.done():
                answer.set_exception(Unreachable("the peer left", peer=peer))
        self._changed()

    async def _slice(self, peer: bytes, number: int, offset: int, length: int) -> bytes:
        token = next(self._tokens)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._asked[token] = peer, length, answer
        try:
            request = PartRequest(token, self._model, number, offset, length)
            self._mesh.send(peer, request, background=True)
            async with asyncio.timeout(_SLICE_BY):
                return await answer
        except TimeoutError:
            raise Unreachable("a peer stalls", peer=peer) from None
        finally:
            del self._asked[token]

    async def _ask(self) -> None:
        while True:
            for peer in self._candidates():
                try:
                    link = self._mesh.link(peer)
                    if link.direct:
                        self._mesh.send(peer, PartsQuery(self._model), background=True)
                    elif link.path is None:
                        link.warm()
                except RemoteError:
                    continue
            await asyncio.sleep(_ASK_EVERY)
            self._changed()

    def _candidates(self) -> list[bytes]:
        """Members that are worth asking: each node has its own few of them."""
        own = self._host.keys.public_key
        now = self._now()
        fit = [
            entry.public_key
            for entry in self._mesh.members(self._model)
            if self._shunned.get(entry.public_key, 0.0) <= now
        ]
        fit.sort(key=lambda peer: hashlib.sha256(own + peer).digest())
        return fit[:_LINKED]

    def _live(self, peer: bytes) -> bool:
        known = self._known.get(peer)
        return known is not None and self._now() - known.at < _FRESH

    def _now(self) -> float:
        return self._host.clock.monotonic()
