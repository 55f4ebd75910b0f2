"""A peer of hivemind's DHT on the network: py-libp2p's streams around `Lookup` and `Door`.

Runs in trio, as libp2p does. Nothing that a peer sends ends it: a call fails, or is refused.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Final

import base58
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.kad_dht.pb.kademlia_pb2 import Message as KadMessage
from libp2p.network.config import ConnectionConfig
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo, info_from_p2p_addr
from libp2p.rcmgr import ResourceManager
from libp2p.rcmgr.connection_limits import ConnectionLimits
from libp2p.rcmgr.manager import ResourceLimits
from libp2p.utils.varint import encode_varint_prefixed, read_varint_prefixed_bytes_limited
from multiaddr import Multiaddr

from pyodide_node.errors import ConfigError, KwaaiNetError, Unreachable
from relay_server.bridge import limits
from relay_server.bridge.addresses import INTERNAL, dialled, is_inside
from relay_server.bridge.door import Door, close
from relay_server.bridge.lookup import Lookup
from relay_server.bridge.messages import (
    METHODS,
    Find,
    FoundAll,
    Item,
    Method,
    Ping,
    Pong,
    Store,
    Stored,
    pack_call,
    protocol_of,
    unpack_answer,
)
from relay_server.bridge.peers import PeerTable
from relay_server.bridge.responder import Responder
from relay_server.inbound import end_with_their_sockets

__all__ = ["DhtHost"]

_KAD: Final = "/ipfs/kad/1.0.0"
_KAD_ANSWER: Final = 64 * 1024
"""Twenty peers with their addresses."""
_TOGETHER: Final = 8
"""Calls of one lookup at once."""
_STORE_BYTES: Final = 512 * 1024
_STORE_ITEMS: Final = 256
"""Of one of our own store calls."""
_PARTING: Final = 1.0
"""Seconds for connections to close when the bridge ends."""


class DhtHost:
    """`async with DhtHost(…).run() as host`. Peer ids are bytes, multihashes."""

    def __init__(self, seed: bytes, listen: str, announce: str, bootstraps: Sequence[str]) -> None:
        """`seed` is an Ed25519 private key; addresses are multiaddrs."""
        self._inside = is_inside(listen, [*bootstraps, *([announce] if announce else [])])
        self._bootstraps = [info_from_p2p_addr(Multiaddr(one)) for one in bootstraps]
        self._listen = Multiaddr(listen)
        self._host: Any = new_host(
            key_pair=create_new_key_pair(seed),
            listen_addrs=[self._listen],
            announce_addrs=[Multiaddr(announce)] if announce else None,
            connection_config=ConnectionConfig(
                max_connections=limits.CONNECTIONS,
                min_connections=0,
                low_watermark=0,
                high_watermark=limits.CONNECTIONS,
                # Also of peers that told libp2p themselves where they are.
                deny_list=None if self._inside else list(INTERNAL),
                max_connections_per_peer=limits.CONNECTIONS_PER_PEER,
                dial_timeout=limits.DIAL,
                inbound_upgrade_timeout=limits.DIAL,
                outbound_upgrade_timeout=limits.DIAL,
            ),
            resource_manager=ResourceManager(
                # Both ends of one that is made at the same moment count.
                limits=ResourceLimits(max_connections=2 * limits.CONNECTIONS + 2),
                connection_limits=ConnectionLimits()
                .with_max_established_total(limits.CONNECTIONS)
                .with_max_established_per_peer(limits.CONNECTIONS_PER_PEER),
            ),
        )
        end_with_their_sockets(self._host)
        self.peer: bytes = self._host.get_id().to_bytes()
        self.table = PeerTable(secrets.token_bytes(limits.KEY))
        self.responder = Responder(self.table, time.time)
        self.door = Door(self.responder, self.ping)

    @property
    def name(self) -> str:
        """The peer id in base58."""
        return base58.b58encode(self.peer).decode()

    @property
    def addresses(self) -> list[str]:
        """Where it can be dialled, its id included."""
        return [str(one) for one in self._host.get_addrs()]

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[DhtHost]:
        """Raises ConfigError when it cannot listen."""
        listens = False
        async with self._host.run(listen_addrs=[self._listen]):
            # It would dial all of whom it ever heard.
            await self._host.get_network().auto_connector.stop()
            listens = bool(self._host.get_transport_addrs())
            if listens:
                for method in METHODS:
                    self._host.set_stream_handler(protocol_of(method), self.door.handler(method))
                try:
                    yield self
                finally:
                    await self._leave()
        # Not within: libp2p would make a group of it.
        if not listens:
            raise ConfigError(
                f"{self._listen} cannot be listened on; choose another --port or --host",
                setting="port",
            )

    async def _leave(self) -> None:
        """Otherwise peers wait for it as for one that was cut off."""
        with trio.move_on_after(_PARTING) as scope:
            scope.shield = True
            for peer in list(self._host.get_connected_peers()):
                await self._host.disconnect(peer)

    def forget(self) -> None:
        """Let go of what libp2p keeps of every peer that ever came: now and then."""
        store = self._host.get_peerstore()
        first = (info.peer_id for info in self._bootstraps)
        kept = {self._host.get_id(), *first, *self._host.get_connected_peers()}
        for peer in store.peer_ids():
            if peer not in kept and peer.to_bytes() not in self.table:
                store.clear_peerdata(peer)
        self._host.get_network().auto_connector.clear_all_cooldowns()

    # --- calls to others --------------------------------------------------------------------

    async def bootstrap(self) -> int:
        """Enter the DHT by those first peers that are not known yet; how many answered."""
        answers = 0
        for info in self._bootstraps:
            peer = info.peer_id.to_bytes()
            if peer in self.table:
                answers += 1
                continue
            with contextlib.suppress(KwaaiNetError):
                await self._connect(info)
                answers += await self.ping(peer)
        if answers:
            await self.explore([self.table.own])
        return answers

    async def ping(self, peer: bytes) -> bool:
        """Whether a peer is there; it is remembered, and remembers us."""
        try:
            data = await self._call(peer, "rpc_ping", Ping(node=self.table.own).pack())
            node = Pong.unpack(data).node
        except KwaaiNetError:
            self.table.remove(peer)
            return False
        if node is not None:
            self.table.heard(node, peer, time.time())
        return True

    async def explore(self, keys: Sequence[bytes]) -> Lookup:
        """Ask the peers nearest to `keys`, and those nearer of whom they tell."""
        seeds = {
            peer: node for key in keys for node, peer in self.table.nearest(key, limits.BUCKET)
        }
        lookup = Lookup(keys, [(node, peer) for peer, node in seeds.items()], self.table.own)
        while True:
            asked = [one for one in (lookup.next() for _ in range(_TOGETHER)) if one]
            if not asked:
                return lookup
            async with trio.open_nursery() as nursery:
                for peer, wanted in asked:
                    nursery.start_soon(self._ask, lookup, peer, wanted)

    async def store(self, items: Sequence[Item]) -> int:
        """Give records to the peers nearest to their keys; of how many somebody took one."""
        lookup = await self.explore(list({item.key for item in items}))
        at: dict[bytes, list[int]] = {}
        for number, item in enumerate(items):
            for peer in lookup.nearest(item.key):
                at.setdefault(peer, []).append(number)
        taken: set[int] = set()
        async with trio.open_nursery() as nursery:
            for peer, numbers in at.items():
                nursery.start_soon(self._give, peer, items, numbers, taken)
        return len(taken)

    async def _give(
        self, peer: bytes, items: Sequence[Item], numbers: list[int], taken: set[int]
    ) -> None:
        for part in _parts(items, numbers):
            request = Store(items=[items[one] for one in part], node=self.table.own)
            try:
                answer = Stored.unpack(await self._call(peer, "rpc_store", request.pack()))
            except KwaaiNetError:
                return
            taken.update(one for one, ok in zip(part, answer.ok, strict=False) if ok)

    async def _ask(self, lookup: Lookup, peer: bytes, keys: list[bytes]) -> None:
        try:
            await self._reach(peer, lookup.told_by.get(peer))
            request = Find(keys=keys, node=self.table.own)
            answer = FoundAll.unpack(await self._call(peer, "rpc_find", request.pack()))
            lookup.answered(peer, keys, answer.results)
        except KwaaiNetError:
            lookup.failed(peer)
            self.table.remove(peer)
            return
        if answer.node is not None:
            self.table.heard(answer.node, peer, time.time())

    async def _call(self, peer: bytes, method: Method, data: bytes) -> bytes:
        """The answer's bytes. Raises Unreachable, ProtocolError."""
        id = secrets.token_bytes(16)
        raw = await self._exchange(
            peer, protocol_of(method), pack_call(id, peer, method, data), limits.MESSAGE
        )
        return unpack_answer(raw, id)

    async def _exchange(self, peer: bytes, protocol: str, data: bytes, most: int) -> bytes:
        """One message each way on a stream of its own. Raises Unreachable."""
        stream = None
        try:
            with trio.fail_after(limits.CALL):
                stream = await self._host.new_stream(ID(peer), [protocol])
                await stream.write(encode_varint_prefixed(data))
                raw: bytes = await read_varint_prefixed_bytes_limited(stream, most)
                return raw
        # libp2p's errors have no root of their own.
        except Exception as error:
            raise Unreachable(f"a peer does not answer {protocol}: {error!r}") from error
        finally:
            if stream is not None:
                await close(stream)

    async def _connect(self, info: Any) -> None:
        """Raises Unreachable."""
        try:
            with trio.fail_after(limits.DIAL):
                await self._host.connect(info)
        except Exception as error:
            raise Unreachable(f"{info.peer_id} cannot be dialled: {error!r}") from error

    async def _reach(self, peer: bytes, told_by: bytes | None) -> None:
        """Connect to a peer of whom another told: hivemind passes ids on, and libp2p's own DHT,
        which its daemons serve, the addresses. Raises Unreachable."""
        if ID(peer) in self._host.get_connected_peers():
            return
        # Who told of it may have heard of it from others: the first peers know most.
        whom = [told_by] if told_by is not None else []
        for asked in [*whom, *(info.peer_id.to_bytes() for info in self._bootstraps)]:
            if asked == peer:
                continue
            with contextlib.suppress(KwaaiNetError):
                found = dialled(await self._addresses_of(peer, asked), self._inside)
                if found:
                    await self._connect(PeerInfo(ID(peer), [Multiaddr(one) for one in found]))
                    return
        raise Unreachable("nobody knows the address of a peer")

    async def _addresses_of(self, peer: bytes, asked: bytes) -> list[str]:
        """What `asked` knows of where `peer` is. Raises Unreachable."""
        question = KadMessage(type=KadMessage.MessageType.FIND_NODE, key=peer)
        raw = await self._exchange(asked, _KAD, question.SerializeToString(), _KAD_ANSWER)
        try:
            known = KadMessage.FromString(raw).closerPeers
            return [str(Multiaddr(one)) for who in known if who.id == peer for one in who.addrs]
        except Exception as error:  # multiaddr's and protobuf's, of what a stranger wrote
            raise Unreachable(f"a peer tells no addresses: {error!r}") from error


def _parts(items: Sequence[Item], numbers: Iterable[int]) -> list[list[int]]:
    """The items of `numbers` in messages that are not too large."""
    parts: list[list[int]] = [[]]
    size = 0
    for one in numbers:
        more = len(items[one].value) + limits.SUBKEY
        if parts[-1] and (size + more > _STORE_BYTES or len(parts[-1]) >= _STORE_ITEMS):
            parts.append([])
            size = 0
        parts[-1].append(one)
        size += more
    return parts
