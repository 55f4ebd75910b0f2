"""The relays of one node: its home, where it announces itself, and those that its peers are on.

Relays do not pass packets on to each other. A node that wants a peer on another relay dials that
one too, as a guest; the peer answers by the way that the packet came. So when a home dies, those
who work together through another relay do not notice: the guest at it becomes at home there.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence

from pyodide_node.errors import RecordError, Unreachable
from pyodide_node.hosts.base import Buffer, Host
from pyodide_node.mesh.relay_client import RelayClient
from pyodide_node.wire import limits
from pyodide_node.wire.messages import Forward, Forwarded, Message, RelayList, Undelivered
from pyodide_node.wire.records import unpack_record, verify_record
from pyodide_node.wire.relays import decode_relay, dialable

__all__ = ["Relays"]

_GUESTS = 8
"""Relays dialled besides home; one more closes the one that was longest of no use."""
_GUEST_DEADLINE = 5.0
"""A relay that has not let this node in by then is passed over for a while."""
_PASSED_OVER = 10.0
_WAYS = 1024
"""Peers of whom is remembered by which relay they were heard last."""


class Relays:
    """`received(message, payload, relay)` gets what relays send, with the key of the one that
    did; `entered()` is called whenever this node has a new home, `changed()` when it has lost
    one; `cut(peers)` when a relay is lost by which these were written to or heard last."""

    def __init__(
        self,
        host: Host,
        urls: Sequence[str],
        *,
        received: Callable[[Message, Buffer, bytes], None],
        entered: Callable[[], None],
        changed: Callable[[], None],
        cut: Callable[[Sequence[bytes]], None],
    ) -> None:
        self._host = host
        self._configured = list(urls)
        self._received = received
        self._entered = entered
        self._changed = changed
        self._cut = cut
        self._guests: dict[bytes, RelayClient] = {}
        self._known: dict[bytes, str] = {}
        self._passed_over: dict[bytes, float] = {}
        self._ways: dict[bytes, RelayClient] = {}
        self._used: dict[bytes, RelayClient] = {}
        self._told: dict[bytes, list[bytes]] = {}
        """The lists of guests' relays: they count once this node is at home there."""
        self._lists: asyncio.Queue[tuple[RelayClient, list[bytes]]] = asyncio.Queue(8)
        self._tasks: set[asyncio.Task[None]] = set()
        self._order = random.Random(host.keys.public_key)  # noqa: S311 - spreads rejoins
        self._closed = False
        self.home = self._client(self._configured)

    def start(self) -> None:
        self.home.start()
        self._spawn(self._learn())

    @property
    def known(self) -> dict[bytes, str]:
        """Addresses of the relays this node was told of, by their keys."""
        return dict(self._known)

    def clients(self) -> list[RelayClient]:
        """Home first."""
        return [self.home, *self._guests.values()]

    def forward(self, peer: bytes, home: bytes, packet: bytes) -> bool:
        """Hand a packet to a relay that `peer`, who announces to be at `home`, is on; False when
        there is none just now."""
        way = self._way(peer, home)
        self._use(peer, way)
        return way.send(Forward(peer), packet)

    async def drain(self, peer: bytes, home: bytes) -> None:
        await self._way(peer, home).drain()

    async def reach(self, peer: bytes, home: bytes) -> None:
        """Be on a relay that `peer` is on, or at home if that one cannot be entered: the peer may
        have moved there. Raises Unreachable when there is no relay at all."""
        way = self._way(peer, home)
        elsewhere = home in self._known and home != self.home.relay
        if elsewhere and (way is self.home or not way.connected):
            await self._be_guest(home)
        if not self._way(peer, home).connected:
            await self.home.entered(limits.HANDSHAKE_DEADLINE)

    async def close(self) -> None:
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(client.close() for client in self.clients()))
        self._guests.clear()

    # --- ways -----------------------------------------------------------------------------

    def _way(self, peer: bytes, home: bytes) -> RelayClient:
        heard = self._ways.get(peer)
        if heard is not None and heard.connected:
            return heard
        guest = self._guests.get(home) if home != self.home.relay else None
        return guest if guest is not None and guest.connected else self.home

    async def _be_guest(self, relay: bytes) -> None:
        now = self._host.clock.monotonic()
        if now < self._passed_over.get(relay, 0.0):
            return
        guest = self._guests.get(relay) or self._visit(relay)
        try:
            await guest.entered(_GUEST_DEADLINE)
        except Unreachable:
            self._passed_over[relay] = self._host.clock.monotonic() + _PASSED_OVER
            self._leave(guest)

    def on(self, relay: bytes) -> bool:
        """Whether this node is connected to that relay just now."""
        return any(client.connected and client.relay == relay for client in self.clients())

    def _visit(self, relay: bytes) -> RelayClient:
        while len(self._guests) >= _GUESTS:
            self._leave(next(iter(self._guests.values())))
        guest = self._guests[relay] = self._client([self._known[relay]], stay=False)
        guest.url, guest.relay = self._known[relay], relay
        guest.start()
        return guest

    def _leave(self, guest: RelayClient) -> None:
        for relay, one in list(self._guests.items()):
            if one is guest:
                del self._guests[relay]
                self._told.pop(relay, None)
                self._spawn(guest.close())

    # --- connections ----------------------------------------------------------------------

    def _client(self, urls: Sequence[str], *, stay: bool = True) -> RelayClient:
        client = RelayClient(
            self._host,
            urls,
            lambda message, payload: self._take(client, message, payload),
            lambda connected: self._client_changed(client, connected),
            stay=stay,
        )
        return client

    def _client_changed(self, client: RelayClient, connected: bool) -> None:
        if self._closed:
            return
        if connected:
            if client is self.home:
                self._at_home(client)
            elif not self.home.connected:
                self._move(client)
            return
        if client is not self.home:
            self._leave(client)  # dialled again when it is needed again
        elif moved := self._settled():
            self._move(moved)
        else:
            self._changed()
        self._ways = {peer: way for peer, way in self._ways.items() if way is not client}
        self._cut([peer for peer, way in self._used.items() if way is client])

    def _settled(self) -> RelayClient | None:
        """The guest that is connected, if any: the one of most use lately."""
        guests = reversed(self._guests.values())
        return next((guest for guest in guests if guest.connected), None)

    def _move(self, guest: RelayClient) -> None:
        """Where this node is already, it is at home now."""
        old, self.home = self.home, guest
        guest.stay = True
        self._guests = {relay: one for relay, one in self._guests.items() if one is not guest}
        self._spawn(old.close())
        self._offer()
        if not self._lists.full() and (told := self._told.pop(guest.relay, None)):
            self._lists.put_nowait((guest, told))
        self._entered()

    def _offer(self) -> None:
        """Others to try when home is lost: those it was given, then those it was told of, which
        each node tries in an order of its own."""
        told = [url for url in sorted(self._known.values()) if url not in self._configured]
        self._order.shuffle(told)
        self.home.offer([*self._configured, *told])

    # --- what they say --------------------------------------------------------------------

    def _take(self, client: RelayClient, message: Message, payload: Buffer) -> None:
        match message:
            case Forwarded(sender):
                self._heard(sender, client)
            case Undelivered(peer, "absent") if self._ways.get(peer) is client:
                del self._ways[peer]
            case RelayList(records):
                if client is self.home:
                    self._take_list(client, records)
                elif client.relay in self._guests:
                    self._told[client.relay] = records
                return
        self._received(message, payload, client.relay)

    def _take_list(self, client: RelayClient, records: list[bytes]) -> None:
        try:
            key = unpack_record(records[0], self._host.clock.wall()).public_key if records else b""
        except RecordError:
            return
        if key != client.relay:
            client.relay = key
            self._at_home(client)
        if not self._lists.full():
            self._lists.put_nowait((client, records))

    def _at_home(self, client: RelayClient) -> None:
        # Here twice one connection would cut the other.
        for guest in list(self._guests.values()):
            if guest.relay == client.relay or guest.url == client.url:
                self._leave(guest)
        self._entered()

    def _heard(self, peer: bytes, client: RelayClient) -> None:
        self._use(peer, client)
        self._ways.pop(peer, None)
        self._ways[peer] = client
        if len(self._ways) > _WAYS:
            del self._ways[next(iter(self._ways))]
        guest = self._guests.pop(client.relay, None)
        if guest is not None:
            self._guests[client.relay] = guest  # at the end: of most use

    def _use(self, peer: bytes, way: RelayClient) -> None:
        self._used.pop(peer, None)
        self._used[peer] = way
        if len(self._used) > _WAYS:
            del self._used[next(iter(self._used))]

    async def _learn(self) -> None:
        while True:
            client, records = await self._lists.get()
            known = {}
            for signed in records:
                try:
                    now = self._host.clock.wall()
                    record = await verify_record(self._host.keys, signed, now)
                    url = decode_relay(record).url
                except RecordError:
                    continue  # the relay's mistake costs it this entry
                if dialable(url, client.url) and record.public_key != client.relay:
                    known[record.public_key] = url
            if client is self.home:
                self._known = known
                self._offer()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
