"""libp2p of one relay: gossip of what changes, and all records to who connects. Runs in trio.

Who connects asks for all records once more a little later, because gossip begins a moment after a
connection and drops silently what a queue cannot hold; and again every few minutes.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

import trio
import varint
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.network.config import ConnectionConfig
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, PROTOCOL_ID_V12, GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.score import ScoreParams, TopicScoreParams
from libp2p.rcmgr import ResourceManager
from libp2p.rcmgr.manager import ResourceLimits
from libp2p.tools.anyio_service import background_trio_service
from libp2p.utils.varint import read_varint_prefixed_bytes_limited
from multiaddr import Multiaddr

from pyodide_node.errors import ConfigError, KwaaiNetError
from pyodide_node.mesh.peer import peer_id, public_key_of
from pyodide_node.wire.records import unpack_record
from relay_server.counters import Counters
from relay_server.federation.bulletin import BULLETIN, RECORDS, bulletins, encode_bulletin
from relay_server.federation.dialler import Dialler
from relay_server.federation.ledger import Changes, Ledger
from relay_server.federation.lookup import Lookup, expired
from relay_server.inbound import end_with_their_sockets

__all__ = ["RECORDS_PROTOCOL", "TOPIC", "Network", "NetworkOptions"]

TOPIC: Final = "kwaainet/relays/1"
RECORDS_PROTOCOL: Final = "/kwaainet/records/1.0.0"

_TICK: Final = 0.25
"""Between bulletins: a burst of changes shares them, and four a second are what gossip bears."""
_INTRODUCE_EVERY: Final = 30.0
_SWEEP_EVERY: Final = 5.0
_ASK_AGAIN: Final = (3.0, 300.0)
"""Seconds from meeting a relay, and from then on, to asking for all its records again."""
_ANSWER_DEADLINE: Final = 30.0
_LEAVE_DEADLINE: Final = 2.0
_STREAMS: Final = 4096
_GOSSIP_PER_SECOND: Final = 256.0
"""Messages from one peer, who passes on what 24 others say eight times a second at most; past it
libp2p drops silently. What each of them may say is the ledger's to judge."""

_PRIVATE: Final = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3", "::/127", "::ffff:0:0/96",
    "fc00::/7", "fe80::/10", "ff00::/8",
)  # fmt: skip
"""Networks that a public relay does not dial, whoever names them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOptions:
    seed: bytes
    """Of the Ed25519 key."""
    key: bytes
    """Its public half."""
    listen: str
    """A multiaddr."""
    bootstrap: Mapping[str, str]
    """Whole multiaddrs by peer id."""
    max_peers: int
    public: bool
    """Whether only addresses in the public net are dialled."""


class Network:
    """`tell(changes)` gets what the relay's directory should follow. All calls come from trio."""

    def __init__(
        self,
        options: NetworkOptions,
        ledger: Ledger,
        tell: Callable[[Changes], None],
        counters: Counters,
    ) -> None:
        self._options = options
        self._ledger = ledger
        self._tell = tell
        self._counters = counters
        self._record = b""
        self._own: dict[bytes, bytes] = {}
        self._said: dict[bytes, bytes] = {}
        self._left: dict[bytes, int] = {}
        self._host: Any
        self._pubsub: Any
        self.lookup: Lookup
        self.addresses: list[str] = []
        """Where it listens, without the peer id."""

    # --- what this relay has to say ---------------------------------------------------------

    def introduce(self, record: bytes) -> None:
        """The relay's own record, made anew."""
        self._record = record
        self.lookup.keep(record, own=True)

    def announced(self, key: bytes, signed: bytes) -> None:
        self._own[key] = self._said[key] = signed
        self._left.pop(key, None)
        self.lookup.keep(signed, own=True)

    def departed(self, key: bytes) -> None:
        signed = self._own.pop(key, None)
        self._said.pop(key, None)
        if signed is not None:
            with contextlib.suppress(KwaaiNetError):  # expired: everybody has forgotten it
                self._left[key] = unpack_record(signed, time.time()).number

    # --- life -------------------------------------------------------------------------------

    async def run(self, started: Callable[[], None], stop: trio.Event) -> None:
        """Raises ConfigError, or whatever libp2p raises, when it cannot listen."""
        logging.getLogger("libp2p").setLevel(logging.CRITICAL)  # its lines name addresses
        options, listen = self._options, [Multiaddr(self._options.listen)]
        self._host = host = new_host(
            key_pair=create_new_key_pair(options.seed),
            listen_addrs=listen,
            resource_manager=ResourceManager(
                # Both ends of one that is made at the same moment count.
                limits=ResourceLimits(
                    max_connections=2 * options.max_peers + 2, max_streams=_STREAMS
                )
            ),
            # No minimum: it would dial whomever anybody named.
            connection_config=ConnectionConfig(
                max_connections=options.max_peers,
                min_connections=0,
                low_watermark=0,
                high_watermark=options.max_peers,
                deny_list=list(_PRIVATE if options.public else ()),
            ),
        )
        end_with_their_sockets(host)
        router = self._router()
        self.lookup = Lookup(host, self._counters)
        host.set_stream_handler(RECORDS_PROTOCOL, self._answer)
        dialler = Dialler(host, peer_id(options.key), options.bootstrap, self._ledger)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(host.run(listen_addrs=listen))
            if not host.get_addrs():  # libp2p does not say so
                raise ConfigError(
                    f"{options.listen} cannot be listened on; choose another --federation",
                    setting="federation",
                )
            for service in (self.lookup.dht, self._pubsub, router):
                await stack.enter_async_context(background_trio_service(service))
            await self._pubsub.wait_until_ready()
            heard = await self._pubsub.subscribe(TOPIC)
            self.addresses = [str(at).partition("/p2p/")[0] for at in host.get_addrs()]
            async with trio.open_nursery() as nursery:
                lookup = self.lookup
                for work in (self._say, self._sweep, dialler.run, lookup.spread, lookup.sweep):
                    nursery.start_soon(work)
                nursery.start_soon(self._meet_peers, nursery)
                nursery.start_soon(_drained, heard)
                started()
                await stop.wait()
                nursery.cancel_scope.cancel()
            with trio.move_on_after(_LEAVE_DEADLINE):
                for peer in host.get_connected_peers():
                    await host.disconnect(peer)

    def _router(self) -> Any:
        router = GossipSub(
            [PROTOCOL_ID_V12, PROTOCOL_ID_V11],
            degree=6,
            degree_low=2,
            degree_high=12,
            heartbeat_interval=1,
            max_messages_per_topic_per_second=_GOSSIP_PER_SECOND,
            score_params=ScoreParams(
                p4_invalid_messages=TopicScoreParams(weight=-1.0, cap=1000, decay=0.9),
                graylist_threshold=-20.0,
            ),
        )
        self._pubsub = Pubsub(
            self._host, router, max_inbound_rpc_size=4 * BULLETIN, allowed_topics={TOPIC}
        )
        self._pubsub.set_topic_validator(TOPIC, self._hear, False)
        return router

    # --- speaking ---------------------------------------------------------------------------

    async def _say(self) -> None:
        due = 0.0
        while True:
            await trio.sleep(_TICK)
            now = trio.current_time()
            if not self._record or not (now >= due or self._said or self._left):
                continue
            due = now + _INTRODUCE_EVERY
            said = [self._said.pop(key) for key in list(self._said)[:RECORDS]]
            left = {key: self._left.pop(key) for key in list(self._left)[:RECORDS]}
            (bulletin,) = bulletins(self._record, said, left.items())
            await self._pubsub.publish(TOPIC, encode_bulletin(bulletin))
            self._counters.bulletins["sent"] += 1

    async def _answer(self, stream: Any) -> None:
        """All that this relay would say to one that knows nothing."""
        try:
            with trio.move_on_after(_ANSWER_DEADLINE):
                for bulletin in bulletins(self._record, list(self._own.values())):
                    data = encode_bulletin(bulletin)
                    await stream.write(varint.encode(len(data)) + data)
            await stream.close()
        except Exception:  # libp2p's errors have no common root: the stream is broken
            await _reset(stream)

    # --- hearing ----------------------------------------------------------------------------

    def _hear(self, forwarder: Any, message: Any) -> bool:
        """Whether a message of gossip is to be believed and passed on."""
        origin = ID(message.from_id)
        return origin == self._host.get_id() or self._take(origin, message.data)

    def _take(self, origin: Any, data: bytes) -> bool:
        try:
            changes = self._ledger.take(public_key_of(str(origin)), data, time.time())
        except KwaaiNetError:
            self._counters.bulletins["refused"] += 1
            return False
        self._counters.bulletins["taken"] += 1
        for signed in (*changes.introduced, *(signed for _, signed in changes.announced)):
            self.lookup.keep(signed)
        self._tell(changes)
        return True

    async def _ask(self, peer: Any) -> None:
        """Take all that a relay says to one that knows nothing; what is no relay says nothing."""
        # As above; the end of the stream is an exception too. What was heard is kept.
        with contextlib.suppress(Exception), trio.move_on_after(_ANSWER_DEADLINE):
            stream = await self._host.new_stream(peer, [RECORDS_PROTOCOL])
            try:
                for _ in range(self._ledger.max_per_relay // RECORDS + 2):
                    data = await read_varint_prefixed_bytes_limited(stream, BULLETIN)
                    if not self._take(peer, data):
                        break
            finally:
                await _reset(stream)

    async def _meet_peers(self, nursery: trio.Nursery) -> None:
        known: set[Any] = set()
        while True:
            peers = set(self._host.get_connected_peers())
            self._counters.relay_peers = len(peers)
            for peer in peers - known:
                nursery.start_soon(self._meet, peer)
            for peer in known - peers:
                self._ledger.disconnected(_key_of(peer), time.time())
            known = peers
            await trio.sleep(_TICK)

    async def _meet(self, peer: Any) -> None:
        wait, again = _ASK_AGAIN
        while peer in self._host.get_connected_peers():
            await self._ask(peer)
            self._ledger.connected(_key_of(peer))
            with contextlib.suppress(Exception):  # as above
                await self.lookup.met(peer)
            await trio.sleep(wait)
            wait = again

    async def _sweep(self) -> None:
        while True:
            await trio.sleep(_SWEEP_EVERY)
            now = time.time()
            self._tell(self._ledger.sweep(now))
            for key in [key for key, signed in self._own.items() if expired(signed, now)]:
                del self._own[key]


async def _drained(subscription: Any) -> None:
    """The validator has taken what a message says; its copy in this queue is of no use."""
    while True:
        await subscription.get()


async def _reset(stream: Any) -> None:
    with contextlib.suppress(Exception):  # broken already
        await stream.reset()


def _key_of(peer: Any) -> bytes:
    """Its Ed25519 key; b"" when it has another kind, as no relay has."""
    try:
        return public_key_of(str(peer))
    except KwaaiNetError:
        return b""
