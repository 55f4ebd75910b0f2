"""Agreeing on sealed sessions with one peer, whoever offers first.

Signing and agreeing are asynchronous in a tab, so that both sides' offers may cross in any way.
Whatever happens both must end with the same session: each step is taken under one lock, and of
two offers that crossed the one of the smaller key stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from pyodide_node.errors import Unreachable
from pyodide_node.hosts.base import Host
from pyodide_node.wire import limits
from pyodide_node.wire.sealed import Offering, SealedSession, accept, is_offer

__all__ = ["Handshake"]


class Handshake:
    """`begin(session, initiator)` takes the session agreed on into use; `sealed` is set then, and
    cleared by whoever ends its use."""

    def __init__(
        self,
        host: Host,
        peer: bytes,
        *,
        reach: Callable[[], Coroutine[None, None, None]],
        forward: Callable[[bytes], bool],
        begin: Callable[[SealedSession, bool], Coroutine[None, None, None]],
    ) -> None:
        self._host = host
        self._peer = peer
        self._reach = reach
        self._forward = forward
        self._begin = begin
        self._offering: Offering | None = None
        self._newest = 0
        self._one = asyncio.Lock()
        self._step = asyncio.Lock()
        """Held over each step: no offer is made while another one is being taken."""
        self.sealed = asyncio.Event()

    @property
    def offering(self) -> bool:
        """Whether an offer of this side waits for its answer."""
        return self._offering is not None

    async def agree(self) -> None:
        """Have a session, by an offer if there is none. Raises Unreachable."""
        async with self._one:
            if not self.sealed.is_set():
                await self._reach()
            if await self._offer():
                await self._answered()

    async def take(self, packet: bytes) -> None:
        """An offer or an answer. Raises SealError."""
        async with self._step:
            if is_offer(packet):
                await self._take_offer(packet)
            else:
                await self._take_answer(packet)

    async def _offer(self) -> bool:
        async with self._step:
            if self.sealed.is_set():
                return False
            offering = await Offering.begin(self._host.keys, self._peer, self._host.clock.wall())
            if not self._forward(offering.packet):
                raise Unreachable("there is no relay to reach this peer through", peer=self._peer)
            self._offering = offering
            return True

    async def _answered(self) -> None:
        try:
            async with asyncio.timeout(limits.HANDSHAKE_DEADLINE):
                await self.sealed.wait()
        except TimeoutError:
            raise Unreachable("this peer does not answer", peer=self._peer) from None
        finally:
            self._offering = None

    async def _take_offer(self, packet: bytes) -> None:
        session, answer = await accept(
            self._host.keys, self._peer, packet, self._host.clock.wall(), self._newest
        )
        self._newest = session.offered  # also of one passed over: it must not come again
        if self._offering is not None and self._host.keys.public_key < self._peer:
            # Said again: who offers only now may not have been there to hear it.
            self._forward(self._offering.packet)
            return
        await self._use(session, initiator=False)
        self._forward(answer)
        self.sealed.set()

    async def _take_answer(self, packet: bytes) -> None:
        if self._offering is not None:
            await self._use(await self._offering.complete(packet), initiator=True)
            self.sealed.set()

    async def _use(self, session: SealedSession, *, initiator: bool) -> None:
        await self._begin(session, initiator)
        self._offering = None
