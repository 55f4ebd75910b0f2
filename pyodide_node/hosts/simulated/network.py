"""Who is where, and what the links between them do: delay, bandwidth, cuts and deaths.

A place is a host's name or a relay's URL. Every pair of places has one `Link`, made on first
use; its two directions are FIFO queues that all connections of the pair share. A cut link holds
what is on its way, as retransmission would, and loses its connections after `silence` seconds.
Randomness comes from one seeded generator, so that a run can be had again.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .pipe import Pipe

if TYPE_CHECKING:
    from .peer import SimulatedPeer
    from .relay import RelayConnection

__all__ = ["Link", "RelayHandler", "SimulatedNetwork"]

RelayHandler = Callable[["RelayConnection"], Awaitable[None]]


@dataclass(slots=True)
class Direction:
    """One way over a link. What enters first arrives first."""

    link: Link
    queue: deque[tuple[float, Callable[[], None]]] = field(default_factory=deque)
    free_at: float = 0.0
    timer: asyncio.TimerHandle | None = None

    def carry(self, size: int, arrive: Callable[[], None]) -> float:
        """Send `size` bytes, calling `arrive` at the other end; returns when they have left."""
        link = self.link
        now = asyncio.get_running_loop().time()
        self.free_at = max(now, self.free_at) + size / link.bandwidth
        lag = link.delay + (link.random.uniform(0, link.jitter) if link.jitter else 0.0)
        self.queue.append((self.free_at + lag, arrive))
        self.pump()
        return self.free_at

    def pump(self) -> None:
        """Set the timer for the head of the queue, unless it is set or the link is cut."""
        if self.timer is None and self.queue and self.link.up:
            loop = asyncio.get_running_loop()
            self.timer = loop.call_at(max(self.queue[0][0], loop.time()), self._deliver)

    def _deliver(self) -> None:
        self.timer = None
        if self.link.up and self.queue:
            _, arrive = self.queue.popleft()
            self.pump()
            arrive()


class Link:
    """Both directions between two places. Its fields may be changed at any time.

    `delay` and `jitter` are seconds one way; `bandwidth` is bytes a second, each way.
    """

    def __init__(
        self, *, delay: float, jitter: float, bandwidth: float, rng: random.Random
    ) -> None:
        self.delay = delay
        self.jitter = jitter
        self.bandwidth = bandwidth
        self.random = rng
        self.webrtc = True
        self.down_since: float | None = None
        self.there = Direction(self)
        self.back = Direction(self)

    @property
    def up(self) -> bool:
        return self.down_since is None


class SimulatedNetwork:
    """All places of one simulation; see the module. `silence` is how long the loss of a link or
    of a silently killed host goes unnoticed, in seconds."""

    def __init__(
        self,
        *,
        seed: int = 0,
        delay: float = 0.010,
        jitter: float = 0.0,
        bandwidth: float = 12_500_000.0,
        silence: float = 15.0,
    ) -> None:
        self.seed = seed
        self.random = random.Random(seed)  # noqa: S311
        self.silence = silence
        self.web: dict[str, bytes] = {}
        """What plain HTTP serves: content by URL, for `Store.fetch` and `Store.pull`."""
        self.rangeless: set[str] = set()
        """URLs of servers that always send the whole file."""
        self._defaults = (delay, jitter, bandwidth)
        self._links: dict[tuple[str, str], Link] = {}
        self._relays: dict[str, RelayHandler] = {}
        self._dead: set[str] = set()
        self._without_webrtc: set[str] = set()
        self._pipes: dict[str, dict[Pipe, None]] = {}  # by place, in the order they opened
        self.peers: dict[str, SimulatedPeer] = {}
        """Peer connections that look for their other end, by ICE user name fragment."""
        self._serving: dict[asyncio.Future[None], str] = {}

    def link(self, one: str, other: str) -> Link:
        """The link between two places, in whichever order they are named."""
        pair = (one, other) if one <= other else (other, one)
        if pair not in self._links:
            delay, jitter, bandwidth = self._defaults
            # A generator of its own: traffic elsewhere must not change this link's jitter.
            rng = random.Random(f"{self.seed} {pair}")  # noqa: S311
            self._links[pair] = Link(delay=delay, jitter=jitter, bandwidth=bandwidth, rng=rng)
        return self._links[pair]

    def direction(self, here: str, there: str) -> Direction:
        link = self.link(here, there)
        return link.there if here <= there else link.back

    def relay(self, url: str, handler: RelayHandler) -> None:
        """Serve `url`: `handler` is awaited for each connection, which ends when it returns."""
        self._relays[url] = handler
        self._dead.discard(url)

    def handler(self, url: str) -> RelayHandler | None:
        return None if url in self._dead else self._relays.get(url)

    def alive(self, place: str) -> bool:
        return place not in self._dead

    def reachable(self, one: str, other: str) -> bool:
        return self.alive(one) and self.alive(other) and self.link(one, other).up

    def webrtc(self, one: str, other: str) -> bool:
        """Whether ICE would find a way between two hosts."""
        blocked = self._without_webrtc & {one, other}
        return not blocked and self.reachable(one, other) and self.link(one, other).webrtc

    def has_webrtc(self, place: str) -> bool:
        return place not in self._without_webrtc

    def block_webrtc(self, one: str, other: str | None = None) -> None:
        """Let ICE fail between two hosts; with one name, that host has no WebRTC at all.

        Connections that are open stay so.
        """
        if other is None:
            self._without_webrtc.add(one)
        else:
            self.link(one, other).webrtc = False

    def unblock_webrtc(self, one: str, other: str | None = None) -> None:
        if other is None:
            self._without_webrtc.discard(one)
        else:
            self.link(one, other).webrtc = True

    def cut(self, one: str, other: str) -> None:
        """Let nothing pass between two places. Healed within `silence`, nothing is lost."""
        link = self.link(one, other)
        if link.up:
            loop = asyncio.get_running_loop()
            link.down_since = loop.time()
            loop.call_later(self.silence, self._give_up, one, other, link.down_since)

    def heal(self, one: str, other: str) -> None:
        link = self.link(one, other)
        link.down_since = None
        link.there.pump()
        link.back.pump()

    def kill(self, place: str, *, silent: bool = False) -> None:
        """End a host or relay between two instructions: none of its callbacks run any more.

        Others see their connections to it close after one delay (a killed process resets them),
        or after `silence` if `silent` (the power went). What its own tasks still do reaches
        nobody; cancel them. A relay comes back by `relay`, a host by `revive`.
        """
        self._dead.add(place)
        for task, url in self._serving.items():
            if url == place:
                task.cancel()
        loop = asyncio.get_running_loop()
        for pipe in list(self._pipes.pop(place, ())):
            pipe.vanish()
            lag = self.silence if silent else self.link(pipe.here, pipe.there).delay
            loop.call_later(lag, pipe.other.lost, "connection lost")

    def revive(self, place: str) -> None:
        self._dead.discard(place)

    def join(self, here: str, there: str) -> tuple[Pipe, Pipe]:
        """Open a connection: its two ends, each yet without callbacks."""
        one, other = Pipe(self, here, there), Pipe(self, there, here)
        one.other, other.other = other, one
        self._pipes.setdefault(here, {})[one] = None
        self._pipes.setdefault(there, {})[other] = None
        return one, other

    def serve(self, url: str, work: Coroutine[Any, Any, None]) -> None:
        """Run a relay's side of one connection, until it returns or the relay is killed."""
        task = asyncio.ensure_future(work)
        self._serving[task] = url
        task.add_done_callback(self._serving.pop)

    def forget(self, pipe: Pipe) -> None:
        self._pipes.get(pipe.here, {}).pop(pipe, None)

    def _give_up(self, one: str, other: str, since: float) -> None:
        link = self.link(one, other)
        if link.down_since == since:
            for here, there in ((one, other), (other, one)):
                for pipe in list(self._pipes.get(here, ())):
                    if pipe.there == there:
                        pipe.lost(f"connection lost after {self.silence:g} s of silence")
            link.there.queue.clear()
            link.back.queue.clear()
