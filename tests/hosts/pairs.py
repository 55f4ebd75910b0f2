"""Two peers and the signalling between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from pyodide_node.hosts.base import Host, PeerConnection, PeerEvents, Signal

__all__ = ["End", "Pair", "Post", "pass_on"]

Post = Callable[["End", Signal], Iterable[Signal]]
"""What arrives of a signal that one end says: by default that signal."""


def pass_on(sender: End, signal: Signal) -> Iterable[Signal]:
    return [signal]


class End:
    """One peer and all that happened to it."""

    def __init__(self, host: Host, initiator: bool) -> None:
        self.opened = asyncio.Event()
        self.inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self.reasons: list[str] = []
        self.ended = asyncio.Event()
        self.said: list[Signal] = []
        self.openings = 0
        self._say: Callable[[Signal], None] = self.said.append
        self.peer: PeerConnection = host.transport.connect(
            initiator=initiator,
            ice_servers=[],
            events=PeerEvents(
                signal=lambda signal: self._say(signal),
                opened=self._open,
                received=self.inbox.put_nowait,
                closed=self._close,
            ),
        )
        assert not self.said, "called back from within connect"

    def on_signal(self, say: Callable[[Signal], None]) -> None:
        self._say = say

    def _open(self) -> None:
        self.openings += 1
        self.opened.set()

    def _close(self, reason: str) -> None:
        self.reasons.append(reason)
        self.ended.set()


class Pair:
    """`ada` offers, `ben` answers; what they say passes through `post`, in order."""

    def __init__(self, ada: Host, ben: Host, *, post: Post = pass_on) -> None:
        self.ada = End(ada, True)
        self.ben = End(ben, False)
        self._post = post
        self._ways = [
            asyncio.create_task(self._carry(self.ada, self.ben)),
            asyncio.create_task(self._carry(self.ben, self.ada)),
        ]

    async def __aenter__(self) -> Pair:
        return self

    async def __aexit__(self, *_: object) -> None:
        for end in (self.ada, self.ben):
            await end.peer.close()
        for way in self._ways:
            way.cancel()
        done = await asyncio.gather(*self._ways, return_exceptions=True)
        for error in done:
            if not isinstance(error, asyncio.CancelledError):
                assert error is None, error
        assert [len(end.reasons) for end in (self.ada, self.ben)] == [1, 1]

    async def open(self) -> None:
        await self.ada.opened.wait()
        await self.ben.opened.wait()

    async def _carry(self, sender: End, receiver: End) -> None:
        queue: asyncio.Queue[Signal] = asyncio.Queue()
        sender.on_signal(queue.put_nowait)
        while True:
            for signal in self._post(sender, await queue.get()):
                await receiver.peer.signal(signal)
