"""The mesh's middle: who is here, who hears of whom, and passing sealed packets on.

Synchronous, and knows no socket but `node.Socket`. All that a node can do wrong ends in
`refuse`: the node is told why, its connection closed, and nobody else notices.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pyodide_node.errors import ProtocolError, RecordError
from pyodide_node.hosts.base import Buffer, Clock
from pyodide_node.mesh.announcement import Announcement, decode_announcement
from pyodide_node.mesh.directory import Directory
from pyodide_node.wire.frames import Frame, parse
from pyodide_node.wire.messages import (
    Challenge,
    Forward,
    Forwarded,
    Hello,
    Message,
    Ping,
    Pong,
    Publish,
    Records,
    Refused,
    RelayList,
    Subscribe,
    Undelivered,
    Welcome,
    decode,
    to_frame,
)
from pyodide_node.wire.records import Record, check_record
from relay_server.counters import Counters
from relay_server.entry import check_hello, verify
from relay_server.gate import Gate
from relay_server.ice import Ice
from relay_server.map.tally import Tally
from relay_server.memory import MemoryWatch
from relay_server.networks import Networks
from relay_server.node import Node, Socket
from relay_server.rates import Rate
from relay_server.refusal import PROTOCOL, Refusal
from relay_server.settings import CONTROL_SLACK, EVICT_AFTER, IDLE_COST, RelaySettings
from relay_server.topics import Later, Topics, batches

__all__ = ["Hub", "Neighbour"]

_SHORTEST_HOLD = 0.001
"""Seconds; a timer for less would cost more than it saves."""

_FORWARDED = to_frame(Forwarded(bytes(32))).type


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A relay that is known here, this one among them; `nodes` are those that it announces."""

    key: bytes
    url: str
    nodes: int
    own: bool = False


class Hub:
    """Raises ConfigError when the TURN secret of the settings cannot be read."""

    def __init__(self, settings: RelaySettings, clock: Clock, later: Later | None = None) -> None:
        self.settings = settings
        self.tally = Tally()
        self.directory = Directory(
            settings.max_records + (settings.max_relay_records if settings.federation else 0),
            self.tally.watch,
        )
        self.counters = Counters()
        self.ice = Ice(settings, clock)
        self.relays = RelayList([])
        """What nodes are told of other relays; this one's own record comes first."""
        self.neighbours: list[Neighbour] = []
        """Relays that are known; none when this one is alone."""
        self.key = b""
        """This relay's own, once others know it."""
        self.announced: Callable[[bytes, bytes], None] = lambda key, signed: None
        """A node of this relay announced itself."""
        self.departed: Callable[[bytes], None] = lambda key: None
        """It left."""
        self.own_names: set[str] = set()
        """What this relay's own nodes dial, beside what the operator calls it."""
        self._clock = clock
        self._nodes: dict[bytes, Node] = {}
        self._entering: dict[Node, None] = {}
        self.networks = Networks(settings)
        self.gate = Gate(settings, self.networks, self.counters, clock)
        self._topics = Topics(later or _loop_later, self._tell)
        self._messages = Rate(settings.messages_per_second, settings.messages_per_second)
        self._bytes = Rate(settings.bytes_per_second, settings.bytes_per_second)
        self._publishes = Rate(settings.publishes_per_second, settings.publish_burst)
        self._memory = MemoryWatch(settings)

    def __len__(self) -> int:
        """Nodes that have entered."""
        return len(self._nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter([*self._nodes.values(), *self._entering])

    @property
    def entering(self) -> int:
        return len(self._entering)

    @property
    def full(self) -> str:
        """Why no node at all would be taken just now; "" when one would be."""
        if len(self._nodes) + len(self._entering) >= self.settings.max_connections:
            return "Full"
        if len(self._entering) >= self.settings.max_handshakes:
            return "TooManyHandshakes"
        return ""

    # --- called by sockets ----------------------------------------------------------------

    def refuses(self, address: str) -> str | None:
        """Why a new connection from `address` is not taken; None when it is."""
        now = self._clock.monotonic()
        network = self.networks.of(address)
        reason = self.networks.refuses(network, now)
        if not reason and self.full == "TooManyHandshakes":
            oldest = next(iter(self._entering))
            if now - oldest.heard > EVICT_AFTER:
                self._cut(oldest, "HandshakeTimeout")
                self.disconnected(oldest)
        reason = reason or self.full
        if not reason:
            return None
        self.counters.refused[reason] += 1
        return reason

    def connected(self, socket: Socket, host: str, address: str) -> Node:
        """A WebSocket has opened: challenge it."""
        network = self.networks.of(address)
        now = self._clock.monotonic()
        node = Node(socket, host=host, network=network, nonce=os.urandom(32), now=now)
        network.connections += 1
        network.entering += 1
        self._entering[node] = None
        node.send(Challenge(node.nonce))
        return node

    def received(self, node: Node, data: Buffer) -> None:
        """One message of a node. Never raises."""
        try:
            now = self._clock.monotonic()
            node.heard = now
            node.pinged = False
            frame = parse(data)
            if frame.sequence != node.received:
                raise ProtocolError(
                    f"frame number {frame.sequence} where {node.received} was due; "
                    "count the frames of a connection from 0",
                )
            node.received = (node.received + 1) & 0xFFFF_FFFF
            self._slow_down(node, len(data), now)
            self._dispatch(node, frame)
        except ProtocolError as error:
            self.refuse(node, Refusal(error.code, str(error), PROTOCOL))
        except RecordError as error:
            self.refuse(node, Refusal(error.code, str(error)))
        except Refusal as refusal:
            self.refuse(node, refusal)

    def idled(self, node: Node, size: int) -> None:
        """A WebSocket frame that is no whole message: it counts, and so does what answers it."""
        self._slow_down(node, size, self._clock.monotonic(), IDLE_COST)
        if node.socket.buffered > self._memory.queue_limit + CONTROL_SLACK:
            self._cut(node, "Slow")

    def arrived(self, node: Node, size: int) -> None:
        """Bytes of this node that were read. Much between two sweeps may be much to hold."""
        self._hold(node, self.networks.read(node.network, self._clock.monotonic(), size))
        if self._memory.arrived(size):
            self._look_at_memory()

    def refuse(self, node: Node, refusal: Refusal) -> None:
        """Tell a node why, and close its connection."""
        self.counters.refused[refusal.code] += 1
        if node.socket.buffered <= self._memory.queue_limit + CONTROL_SLACK:
            node.send(Refused(refusal.code, str(refusal)[:1024]))
        node.socket.close(refusal.close_code, str(refusal))

    def disconnected(self, node: Node) -> None:
        """The socket is closing or lost; a second call is harmless."""
        if node.left:
            return
        node.left = True
        if not node.key:
            del self._entering[node]
            node.network.entering -= 1
        node.network.connections -= 1
        self._topics.leave(node)
        if self._nodes.get(node.key) is node:
            del self._nodes[node.key]
            entry = self.directory.get(node.key)
            if entry is not None and self._is_home(entry.announcement):
                self.directory.remove(node.key)
                self._topics.gone(entry.announcement.model, node.key)
                self.departed(node.key)

    # --- called by the relay --------------------------------------------------------------

    def sweep(self) -> None:
        """Look at all deadlines, and at the memory that slow nodes hold."""
        now, settings = self._clock.monotonic(), self.settings
        for node in self:
            silent = now - node.heard
            if not node.key:
                if silent > settings.handshake_deadline:
                    text = "the handshake was not finished in time"
                    self.refuse(node, Refusal("HandshakeTimeout", text))
            elif node.stalled_for(now) > settings.stall_timeout:
                self._cut(node, "Stalled")
            elif silent > settings.idle_timeout:
                self.refuse(node, Refusal("Idle", "this node did not answer; connect again"))
            elif silent > settings.ping_after and not node.pinged:
                node.pinged = True
                self._tell(node, *_encoded(Ping(int(now * 1000))))
            if now >= node.renew_turn_at and not node.left:
                self._tell_turn(node)
        self._look_at_memory()
        self.gate.sweep()
        self.networks.sweep(now)
        self.directory.expire(self._clock.wall())

    def _look_at_memory(self) -> None:
        for node in self._memory.look(list(self)):
            self._cut(node, "Crowded")

    # --- called by the federation ----------------------------------------------------------

    def tell_relays(self, records: list[bytes], *, aloud: bool) -> None:
        """Hand nodes the signed records of relays, this one's own first: those who come, and
        `aloud` those who are here."""
        self.relays = RelayList(records)
        if not aloud:
            return
        kind, body = _encoded(self.relays)
        for node in list(self._nodes.values()):
            self._tell(node, kind, body)

    def admit(self, record: Record, signed: bytes) -> None:
        """Take a verified announcement of a node on another relay. Raises RecordError when there
        is no room."""
        older = self.directory.get(record.public_key)
        if not self.directory.admit(record, signed, self._clock.wall()):
            return
        model = decode_announcement(record).model
        if older is not None and older.announcement.model != model:
            self._topics.gone(older.announcement.model, record.public_key)
        self._topics.changed(model, record.public_key, signed)

    def forget(self, key: bytes, home: bytes) -> None:
        """A node has left the relay `home`, or that relay is gone."""
        entry = self.directory.get(key)
        if entry is not None and entry.announcement.home == home != self.key:
            self.directory.remove(key)
            self._topics.gone(entry.announcement.model, key)

    # --- messages -------------------------------------------------------------------------

    def _slow_down(self, node: Node, size: int, now: float, count: int = 1) -> None:
        node.message_state = self._messages.spend(node.message_state, now, count)
        node.byte_state = self._bytes.spend(node.byte_state, now, size)
        excess = max(
            self._messages.excess(node.message_state, now),
            self._bytes.excess(node.byte_state, now),
            self.networks.message(node.network, now, count),
        )
        self._hold(node, excess)

    def _hold(self, node: Node, excess: float) -> None:
        if excess > _SHORTEST_HOLD:
            self.counters.throttled += 1
            node.socket.hold(excess)

    def _dispatch(self, node: Node, frame: Frame) -> None:
        message = decode(frame)
        if not node.key:
            if not isinstance(message, Hello):
                raise ProtocolError("the challenge must be answered with a Hello first")
            self._enter(node, message)
            return
        match message:
            case Forward(to):
                self._forward(node, to, frame)
            case Pong():
                pass
            case Ping(token):
                self._tell(node, *_encoded(Pong(token)))
            case Publish(record):
                self._publish(node, record)
            case Subscribe(model):
                self._subscribe(node, model)
            case _:
                name = type(message).__name__
                raise ProtocolError(f"a {name} is not for relays", type=frame.type)

    def _enter(self, node: Node, hello: Hello) -> None:
        audiences = self.settings.audiences
        if audiences:
            audiences |= self.own_names
        check_hello(hello, node.nonce, node.host, audiences)
        older = self._nodes.get(hello.public_key)
        del self._entering[node]
        node.network.entering -= 1
        node.key = hello.public_key
        node.nonce = b""
        node.sender_body = to_frame(Forwarded(node.key)).body
        self._nodes[node.key] = node
        if older is not None:
            # The node is the same, so its announcement stands; only the connection is new.
            node.announced = older.announced
            text = "this key connected again; only its newest connection stays"
            self.refuse(older, Refusal("Replaced", text))
        self.counters.entered += 1
        node.socket.welcome()
        node.send(Welcome(self.ice.stun(node.host)))
        self._tell_turn(node)
        if self.relays.records:
            node.send(self.relays)

    def _tell_turn(self, node: Node) -> None:
        servers = self.ice.turn(node)
        if servers is not None:
            self._tell(node, *_encoded(servers))

    def _forward(self, node: Node, to: bytes, frame: Frame) -> None:
        target = self._nodes.get(to)
        counters = self.counters
        if to not in node.partners:
            node.wrote_to(to)
        if target is None:
            code = "absent"
        elif not target.wants(node):
            code = "unwanted"
        elif target.socket.buffered + len(frame.payload) > self._memory.queue_limit:
            code = "full"
        else:
            target.write(_FORWARDED, node.sender_body, frame.payload)
            counters.forwarded_frames += 1
            counters.forwarded_bytes += len(frame.payload)
            return
        counters.undelivered[code] += 1
        self._tell(node, *_encoded(Undelivered(to, code)))

    def _publish(self, node: Node, signed: bytes) -> None:
        now = self._clock.monotonic()
        node.publish_state = self._publishes.spend(node.publish_state, now)
        crowd = self.networks.publishes_too_fast(node.network, now)
        if crowd or self._publishes.excess(node.publish_state, now) > 0:
            raise Refusal("RateLimited", "too many announcements; one every 120 s is enough")
        wall = self._clock.wall()
        record = check_record(verify, signed, wall)
        if record.public_key != node.key:
            raise Refusal("NotYours", "a node publishes its own records only")
        announcement = decode_announcement(record)
        model = announcement.model
        if not self._is_home(announcement):
            return  # on its way while the node moved here
        if not self.directory.admit(record, signed, wall):
            return  # not newer than the one held: harmless, and nothing to tell
        self.counters.published += 1
        if node.announced and node.announced != model:
            self._topics.gone(node.announced, node.key)
        node.announced = model
        self._topics.changed(model, node.key, signed)
        if announcement.home:
            self.announced(node.key, signed)

    def _is_home(self, announcement: Announcement) -> bool:
        return announcement.home in (b"", self.key)

    def _subscribe(self, node: Node, model: bytes) -> None:
        if model in node.topics:
            return  # it has had them all, and hears of every change
        if len(node.topics) >= self.settings.max_topics:
            raise Refusal("TooManyTopics", f"at most {self.settings.max_topics} models at once")
        self._topics.subscribe(node, model)
        held = self.directory.entries(model, self._clock.wall())
        others = [entry.signed for entry in held if entry.public_key != node.key]
        # An empty answer is one too: the node need not wait for more.
        for message in batches(others) or [Records([])]:
            self._tell(node, *_encoded(message))

    def _tell(self, node: Node, kind: int, body: bytes) -> None:
        """The relay's own words. A node that does not read them has lost track: cut it."""
        if node.socket.buffered + len(body) > self._memory.queue_limit + CONTROL_SLACK:
            self._cut(node, "Slow")
        else:
            node.write(kind, body)

    def _cut(self, node: Node, reason: str) -> None:
        if not node.doomed:
            node.doomed = True
            self.counters.refused[reason] += 1
            node.socket.abort()


def _encoded(message: Message) -> tuple[int, bytes]:
    frame = to_frame(message)
    return frame.type, frame.body


def _loop_later(seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(seconds, call)
