"""The mesh: the peers that are there, and a way to send to each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence

from pyodide_node.errors import RecordError, Unreachable
from pyodide_node.hosts.base import Buffer, Host
from pyodide_node.mesh.directory import Directory, Entry
from pyodide_node.mesh.link import Link
from pyodide_node.mesh.paths import Path, PathChooser, PathPolicy
from pyodide_node.mesh.relay_client import RelayClient
from pyodide_node.mesh.relays import Relays
from pyodide_node.wire.messages import (
    Forwarded,
    Gone,
    Message,
    Publish,
    Records,
    Subscribe,
    Undelivered,
)
from pyodide_node.wire.records import verify_record

__all__ = ["Mesh"]

_EXPIRE_EVERY = 30.0
_LINKS = 512
"""Links kept; one more closes the one least needed."""


class Mesh:
    """`received(peer, message, payload, path)` gets what peers send, this node itself included;
    `changed()` is called when the directory or the relay's state changed;
    `gone(peer)` when the relay says that a peer left."""

    def __init__(
        self,
        host: Host,
        *,
        policy: PathPolicy,
        received: Callable[[bytes, Message, Buffer, Path], None],
        changed: Callable[[], None],
        gone: Callable[[bytes], None],
    ) -> None:
        self._host = host
        self._policy: PathPolicy = policy
        self._received = received
        self._changed = changed
        self._gone = gone
        self._links: dict[bytes, Link] = {}
        self._relays: Relays | None = None
        self._published: bytes | None = None
        self._published_home = b""
        self._models: list[bytes] = []
        self._unverified: asyncio.Queue[bytes] = asyncio.Queue(10_000)
        self._tasks: set[asyncio.Task[None]] = set()
        self._heard = asyncio.Event()
        self._closed = False
        self.directory = Directory()
        self.last_error = ""
        """Why the last record that came was not believed; "" once one was."""
        self.cut: Callable[[bytes], None] = lambda peer: None
        """Called when what was on its way to a peer, or from it, is lost with a relay."""
        self.moved: Callable[[], None] = lambda: None
        """Called when the announcement names another home than this node has now."""

    @property
    def relay(self) -> RelayClient | None:
        """The home of this node: the one that it announces itself at."""
        return self._relays.home if self._relays is not None else None

    @property
    def relays(self) -> list[RelayClient]:
        """Home, then those where this node is a guest."""
        return self._relays.clients() if self._relays is not None else []

    @property
    def home(self) -> bytes:
        """What an announcement made now should say of where this node is."""
        return self.relay.relay if self.relay is not None else b""

    @property
    def connected(self) -> bool:
        return self.relay is not None and self.relay.connected

    def join(self, urls: Sequence[str]) -> None:
        """Begin to keep a connection to the first relay that answers, and to those that peers
        are on."""
        self._relays = Relays(
            self._host,
            urls,
            received=self._from_relay,
            entered=self._relay_entered,
            changed=self._changed,
            cut=self._cut,
        )
        self._relays.start()
        self._spawn(self._verify_records())
        self._spawn(self._expire())

    async def joined(self, timeout: float) -> None:
        """Wait for the relay. Raises Unreachable."""
        if self.relay is not None:
            await self.relay.entered(timeout)

    async def heard(self, timeout: float) -> None:
        """Wait until the relay has told of somebody, at most `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._heard.wait()
        except TimeoutError:
            return

    def publish(self, signed: bytes | None, home: bytes = b"") -> None:
        """Announce this record, which names `home`, now and whenever that is entered again."""
        self._published, self._published_home = signed, home
        if signed is not None and self.relay is not None:
            if home in (b"", self.home):
                self.relay.send(Publish(signed))
            else:
                self.moved()

    def subscribe(self, model: bytes) -> None:
        """Hear of the nodes that serve `model`."""
        if model not in self._models:
            self._models.append(model)
            if self.relay is not None:
                self.relay.send(Subscribe(model))

    def entries(self, model: bytes) -> list[Entry]:
        """Who serves `model`, as far as this node has heard; never this node itself."""
        return [one for one in self.members(model) if one.announcement.serves]

    def members(self, model: bytes) -> list[Entry]:
        """As `entries`, with those that hold or fetch its files and serve no blocks yet."""
        own = self._host.keys.public_key
        found = self.directory.entries(model, self._host.clock.wall())
        return [entry for entry in found if entry.public_key != own]

    def link(self, peer: bytes) -> Link:
        """The link to a peer; made when there is none. Raises Unreachable once closed."""
        if self._closed:
            raise Unreachable("this node has left the network", peer=peer)
        link = self._links.pop(peer, None)
        if link is None:
            link = Link(
                self._host,
                peer,
                policy=self._policy,
                ice_servers=lambda: self.relay.ice_servers if self.relay else [],
                reach=lambda: self._reach(peer),
                forward=lambda packet: self._forward(peer, packet),
                drain_relay=lambda: self._drain_relay(peer),
                received=lambda message, payload, path: self._received(
                    peer, message, payload, path
                ),
            )
            link.start()
            while len(self._links) >= _LINKS:
                self._spawn(self._links.pop(self._least_needed()).close())
        self._links[peer] = link  # at the end: the longest unused comes first
        return link

    def _least_needed(self) -> bytes:
        """The longest unused link, of those that never came about if there are any: making
        others costs a hostile relay or a crowd of fresh keys nothing."""
        unsealed = (peer for peer, link in self._links.items() if link.path is None)
        return next(unsealed, None) or next(iter(self._links))

    def links(self) -> list[Link]:
        return list(self._links.values())

    def path(self, peer: bytes) -> Path | None:
        """The way a small message to this peer would go now, if there is one."""
        link = self._links.get(peer)
        return link.path if link is not None else None

    def latency(self, peer: bytes, size: int) -> float:
        """Seconds one way for a message of `size`, as far as is known."""
        link = self._links.get(peer)
        paths = link.paths if link is not None else PathChooser(self._policy)
        direct = self._policy != "relay" and (link is None or link.direct)
        return paths.expected("webrtc" if direct else "relay", size)

    def warm(self, peers: Sequence[bytes]) -> None:
        """Open links to peers that will be needed, so that the first message finds a path."""
        for peer in peers:
            if peer not in self._links and not self._closed:
                self.link(peer).warm()

    def send(
        self, peer: bytes, message: Message, payload: Buffer = b"", *, background: bool = False
    ) -> None:
        """Queue a message to a peer, or to this node itself. Raises Unreachable.

        `background`: as `Link.send`.
        """
        if peer == self._host.keys.public_key:
            asyncio.get_running_loop().call_soon(self._received, peer, message, payload, "local")
        else:
            self.link(peer).send(message, payload, background=background)

    async def close(self) -> None:
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(link.close() for link in self._links.values()))
        self._links.clear()
        if self._relays is not None:
            await self._relays.close()

    # --- the relay ------------------------------------------------------------------------

    def _forward(self, peer: bytes, packet: bytes) -> bool:
        relays = self._relays
        return relays is not None and relays.forward(peer, self._home_of(peer), packet)

    async def _reach(self, peer: bytes) -> None:
        if self._relays is not None:
            await self._relays.reach(peer, self._home_of(peer))

    async def _drain_relay(self, peer: bytes) -> None:
        if self._relays is not None:
            await self._relays.drain(peer, self._home_of(peer))

    def _home_of(self, peer: bytes) -> bytes:
        entry = self.directory.get(peer)
        return entry.announcement.home if entry is not None else b""

    def _relay_entered(self) -> None:
        if self.relay is not None:
            for model in self._models:
                self.relay.send(Subscribe(model))
            if self._published is not None:
                self.publish(self._published, self._published_home)
            for link in self._links.values():
                link.resume()
        self._changed()

    def _from_relay(self, message: Message, payload: Buffer, relay: bytes) -> None:
        match message:
            case Forwarded(sender):
                if sender != self._host.keys.public_key and not self._closed:
                    self.link(sender).take_packet(payload)
            case Records(records):
                for signed in records:
                    if not self._unverified.full():
                        self._unverified.put_nowait(signed)
                if not records:
                    self._heard.set()  # there is nobody yet
            case Gone(peer):
                self._left(peer)
            case Undelivered(peer, "absent"):
                home = self._home_of(peer)
                if home in (b"", relay) or self._relays is None or not self._relays.on(home):
                    self._left(peer)
                else:  # it went to the wrong relay; the right one is at hand
                    self._gone(peer)
            case _:
                pass  # a relay newer than this node may say more

    def _cut(self, peers: Sequence[bytes]) -> None:
        for peer in peers:
            link = self._links.get(peer)
            if link is not None and link.relayed_lately:
                self.cut(peer)

    def _left(self, peer: bytes) -> None:
        if self.directory.remove(peer) is not None:
            self._changed()
        self._gone(peer)

    async def _verify_records(self) -> None:
        while True:
            signed = await self._unverified.get()
            now = self._host.clock.wall()
            try:
                record = await verify_record(self._host.keys, signed, now)
                self.last_error = ""
                if self.directory.admit(record, signed, now):
                    self._changed()
            except RecordError as error:  # the relay should have refused it, or a clock is off
                self.last_error = str(error)
            if self._unverified.empty():
                self._heard.set()

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(_EXPIRE_EVERY)
            if self.directory.expire(self._host.clock.wall()):
                self._changed()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
