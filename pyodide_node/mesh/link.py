"""A link: everything between this node and one peer, whatever way it goes.

It begins sealed through the relay and gains a data channel when ICE succeeds. One *epoch* is one
sealed session: its sequence numbers, its reassembler and its data channel belong together, so
that a peer that was restarted begins anew and nothing of before can be mistaken for it.

Inbound packets and outbound messages each have one task: sealing is asynchronous in a tab, and
order must survive it. The link's own messages have another: those that open a channel must not
wait behind one that waits for the channel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field

from pyodide_node.errors import KwaaiNetError, RemoteError, SealError, Unreachable
from pyodide_node.hosts.base import Buffer, Host, Route
from pyodide_node.mesh.channel import DirectChannel
from pyodide_node.mesh.custody import HEARD_BY, Custody
from pyodide_node.mesh.handshake import Handshake
from pyodide_node.mesh.paths import Path, PathChooser, PathPolicy
from pyodide_node.mesh.receipts import Receipts
from pyodide_node.wire import limits
from pyodide_node.wire.frames import Frame, Reassembler, encode
from pyodide_node.wire.messages import (
    IceServer,
    Message,
    PathAck,
    PathPing,
    PathPong,
    SignalMessage,
    decode,
    to_frame,
)
from pyodide_node.wire.sealed import RESET, SealedSession, is_answer, is_data, is_offer

__all__ = ["Link"]

_PING_EVERY = 15.0
_OWN_MESSAGES = 256
"""Signals and pings that may wait: an honest peer causes a few."""
_UNDER_WAY = 3.0
"""Seconds for which a message, or its answer, may be under way by a relay: an asker waits no longer
for a quick step."""
_OVERHEAD = 256
"""Bytes that waiting costs beside a payload: empty messages take memory too."""


@dataclass(slots=True)
class _Epoch:
    session: SealedSession
    channel: DirectChannel
    receipts: Receipts
    custody: Custody
    reader: Reassembler = field(default_factory=Reassembler)
    sequence: int = 0

    def end(self) -> None:
        self.receipts.end()
        self.custody.end()


@dataclass(order=True, slots=True)
class _Queued:
    """Compared by its first two fields: what is not in the background first, then in order."""

    background: bool
    number: int
    message: Message | None = field(compare=False)
    """None: what is to be sent again has its turn."""
    payload: Buffer = field(compare=False)


class Link:
    """Sends to and receives from one peer.

    `forward(packet)` hands a packet to a relay and returns False when there is none; `reach()`
    waits for one that the peer is on.
    `received(message, payload, path)` gets every message but those of the link itself.
    """

    def __init__(
        self,
        host: Host,
        peer: bytes,
        *,
        policy: PathPolicy,
        ice_servers: Callable[[], Sequence[IceServer]],
        reach: Callable[[], Coroutine[None, None, None]],
        forward: Callable[[bytes], bool],
        drain_relay: Callable[[], Coroutine[None, None, None]],
        received: Callable[[Message, Buffer, Path], None],
    ) -> None:
        self._host = host
        self.peer = peer
        self._policy: PathPolicy = policy
        self._ice_servers = ice_servers
        self._reach = reach
        self._forward = forward
        self._drain_relay = drain_relay
        self._received = received
        self.paths = PathChooser(policy)
        self._epoch: _Epoch | None = None
        self._handshake = Handshake(
            host, peer, reach=reach, forward=forward, begin=self._begin_epoch
        )
        self._channel_changed = asyncio.Event()
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._inbox_bytes = 0
        self._outbox: asyncio.PriorityQueue[_Queued] = asyncio.PriorityQueue()
        self._queued = 0
        self._outbox_bytes = 0
        self._own: asyncio.Queue[Message] = asyncio.Queue(_OWN_MESSAGES)
        self._sealing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._relayed = -_UNDER_WAY
        self.last_error = ""

    def start(self) -> None:
        name = self.peer.hex()[:8]
        self._tasks = [
            asyncio.create_task(self._read(), name=f"link {name} in"),
            asyncio.create_task(self._write(), name=f"link {name} out"),
            asyncio.create_task(self._write_own(), name=f"link {name} own"),
            asyncio.create_task(self._ping(), name=f"link {name} ping"),
        ]

    @property
    def direct(self) -> bool:
        """Whether the data channel is open."""
        return self._epoch is not None and self._epoch.channel.open

    @property
    def route(self) -> Route | None:
        """How the data channel's packets travel, while it is open and as far as is known."""
        return self._epoch.channel.route if self._epoch is not None and self.direct else None

    @property
    def relayed_lately(self) -> bool:
        """Whether a message, not of the link itself, may still be on its way by a relay."""
        return self._host.clock.monotonic() - self._relayed < _UNDER_WAY

    @property
    def path(self) -> Path | None:
        """The way a small message would go now."""
        return self.paths.choose(
            limits.CHANNEL_MESSAGE, channel=self.direct, relay=self._handshake.sealed.is_set()
        )

    def send(self, message: Message, payload: Buffer = b"", *, background: bool = False) -> None:
        """Queue a message. Raises Unreachable when this peer's queue is full.

        In the `background` it waits for all others, and goes directly or not at all: a relay is
        not there to carry files.
        """
        size = len(payload) + _OVERHEAD
        if self._outbox_bytes + size > limits.OUTBOX:
            raise Unreachable("this peer takes messages too slowly", peer=self.peer)
        self._outbox_bytes += size
        self._queued += 1
        self._outbox.put_nowait(_Queued(background, self._queued, message, payload))

    def warm(self) -> None:
        """Seal now and measure, before there is anything to send."""
        self._send_own(PathPing(int(self._host.clock.monotonic() * 1e6)))

    def take_packet(self, packet: Buffer) -> None:
        """A packet of this peer, from the relay; dropped when it floods this node."""
        size = len(packet) + _OVERHEAD
        if self._inbox_bytes + size <= limits.OUTBOX + _OVERHEAD:
            self._inbox_bytes += size
            self._inbox.put_nowait(bytes(packet))

    def resume(self) -> None:
        """There is a way again: what waited for one goes now."""
        if self._epoch is not None and self._epoch.custody.again:
            self._wake()

    async def direct_open(self, timeout: float) -> bool:
        """Wait until the data channel is open."""
        try:
            async with asyncio.timeout(timeout):
                while not self.direct:
                    self._channel_changed.clear()
                    await self._channel_changed.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._epoch is not None:
            self._epoch.end()
            await self._epoch.channel.close()
            self._epoch = None

    # --- epochs ---------------------------------------------------------------------------

    async def _begin_epoch(self, session: SealedSession, initiator: bool) -> None:
        await self._end_epoch()
        channel = DirectChannel(
            self._host,
            initiator=initiator,
            ice_servers=self._ice_servers,
            signal=self._send_own,
            received=self._take_channel_data,
            changed=self._channel_state,
        )
        ask = self.warm if self._policy == "auto" else None
        custody = Custody(self._host.clock, ask=ask, wake=self._wake)
        self._epoch = _Epoch(session, channel, Receipts(self._send_receipt), custody)
        if self._policy != "relay":
            channel.start()

    async def _end_epoch(self) -> None:
        epoch, self._epoch = self._epoch, None
        self._handshake.sealed.clear()
        if epoch is not None:
            epoch.end()
            self.paths.forget("webrtc")
            await epoch.channel.close()

    # --- inbound --------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            packet = await self._inbox.get()
            self._inbox_bytes -= len(packet) + _OVERHEAD
            try:
                await self._take(packet)
            except RemoteError as error:  # theirs: this packet is lost, the link stays
                self.last_error = str(error)

    async def _take(self, packet: bytes) -> None:
        if is_data(packet):
            if self._epoch is None:
                if not self._handshake.offering:  # else the offer on its way says as much
                    self._forward(RESET)
                raise SealError("a sealed packet of a session that is not known here")
            self._take_frame(await self._epoch.session.open(packet), "relay")
        elif is_offer(packet) or is_answer(packet):
            await self._handshake.take(packet)
        elif packet == RESET:
            await self._end_epoch()

    def _take_channel_data(self, data: bytes) -> None:
        try:
            self._take_frame(data, "webrtc")
        except RemoteError as error:
            self.last_error = str(error)

    def _take_frame(self, data: Buffer, path: Path) -> None:
        epoch = self._epoch
        if epoch is None:
            return
        frame = epoch.reader.feed(data)
        if frame is None:
            return
        match decode(frame):
            case SignalMessage() as signal:
                if self._policy != "relay" and path == "relay":
                    epoch.channel.take_signal(signal)
            case PathPing(token):
                self._reply_pong(epoch, token, path)
            case PathPong(token):
                self.paths.measured(path, max(0.0, self._host.clock.monotonic() - token / 1e6))
                if path == "relay" and epoch.custody.answered(token):
                    self.paths.measured("webrtc", 2 * HEARD_BY)  # until it has shown to be quick
            case PathAck(sequences):
                epoch.custody.unheard.heard(sequences)
            case message:
                if path == "webrtc":
                    epoch.receipts.note(frame.sequence)
                else:
                    self._relayed = self._host.clock.monotonic()
                self._received(message, frame.payload, path)

    def _reply_pong(self, epoch: _Epoch, token: int, path: Path) -> None:
        if path == "webrtc":
            if not epoch.channel.crowded:
                self._spawn_send(epoch, self._next_frame(epoch, PathPong(token)))
        else:
            self._send_own(PathPong(token))

    def _send_receipt(self, receipt: PathAck) -> None:
        epoch = self._epoch
        if epoch is not None and epoch.channel.open and not epoch.channel.crowded:
            self._spawn_send(epoch, self._next_frame(epoch, receipt))
        else:
            self._send_own(receipt)

    # --- what a channel may have lost -----------------------------------------------------

    def _wake(self) -> None:
        self._outbox.put_nowait(_Queued(False, 0, None, b""))

    async def _send_again(self) -> None:
        """By the relay if it may be, else by the next channel; what finds no way waits for one."""
        epoch = self._epoch
        while epoch is not None and epoch is self._epoch and epoch.custody.again:
            frame = epoch.custody.again.popleft()
            try:
                if self._policy == "webrtc":
                    raise Unreachable("this link goes by no relay", peer=self.peer)
                await self._relay(epoch, frame)
            except Unreachable:
                if not await self._send_direct(epoch, frame):
                    epoch.custody.again.appendleft(frame)
                    return

    async def _send_direct(self, epoch: _Epoch, frame: Frame) -> bool:
        """False when the channel is not open: the frame is still to be sent."""
        epoch.custody.sent(frame)
        if await epoch.channel.send(frame):
            return True
        return not epoch.custody.unheard.take(frame.sequence)  # else it is to be sent again already

    # --- outbound -------------------------------------------------------------------------

    def _next_frame(self, epoch: _Epoch, message: Message, payload: Buffer = b"") -> Frame:
        frame = to_frame(message, payload, sequence=epoch.sequence)
        epoch.sequence = (epoch.sequence + 1) & 0xFFFF_FFFF
        return frame

    async def _write(self) -> None:
        while True:
            queued = await self._outbox.get()
            message = queued.message
            if message is not None:
                self._outbox_bytes -= len(queued.payload) + _OVERHEAD
            try:
                if message is None:
                    await self._send_again()
                    continue
                await self._handshake.agree()
                if queued.background:
                    await self._send_directly(message, queued.payload)
                else:
                    await self._send_now(message, queued.payload)
            except KwaaiNetError as error:  # the message is lost; its sender has a deadline
                self.last_error = str(error)

    async def _write_own(self) -> None:
        """The link's own messages: always by the relay, whatever the policy."""
        while True:
            message = await self._own.get()
            try:
                await self._handshake.agree()
                epoch = self._current()
                await self._relay(epoch, self._next_frame(epoch, message))
            except KwaaiNetError as error:
                self.last_error = str(error)

    def _send_own(self, message: Message) -> None:
        if not self._own.full():
            self._own.put_nowait(message)

    def _current(self) -> _Epoch:
        if self._epoch is None:
            raise Unreachable("the link was reset", peer=self.peer)
        return self._epoch

    async def _send_now(self, message: Message, payload: Buffer) -> None:
        if self._policy == "webrtc":
            await self.direct_open(limits.ICE_DEADLINE)
        epoch = self._current()
        path = self.paths.choose(len(payload), channel=self.direct, relay=True)
        frame = self._next_frame(epoch, message, payload)
        if path == "webrtc" and await self._send_direct(epoch, frame):
            return
        if self._policy == "webrtc":
            raise Unreachable("no direct path to this peer", peer=self.peer)
        self._relayed = self._host.clock.monotonic()
        try:
            await self._relay(epoch, frame)
        except Unreachable:
            if path == "webrtc" or not await self._send_direct(epoch, frame):
                raise

    async def _send_directly(self, message: Message, payload: Buffer) -> None:
        epoch = self._current()
        if not self.direct or not await epoch.channel.send(
            self._next_frame(epoch, message, payload)
        ):
            raise Unreachable("no direct path to this peer", peer=self.peer)

    async def _relay(self, epoch: _Epoch, frame: Frame) -> None:
        await self._reach()
        async with self._sealing:
            if not self._forward(await epoch.session.seal(encode(frame))):
                raise Unreachable("the relay is lost", peer=self.peer)
        await self._drain_relay()

    def _spawn_send(self, epoch: _Epoch, frame: Frame) -> None:
        task = asyncio.ensure_future(epoch.channel.send(frame))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _channel_state(self, opened: bool) -> None:
        self._channel_changed.set()
        epoch = self._epoch
        if not opened:
            self.paths.forget("webrtc")
        if epoch is None:
            return
        if opened:
            self._ping_channel(epoch)
            self.resume()
        else:
            epoch.custody.lost()

    def _ping_channel(self, epoch: _Epoch) -> None:
        token = int(self._host.clock.monotonic() * 1e6)
        self._spawn_send(epoch, self._next_frame(epoch, PathPing(token)))

    async def _ping(self) -> None:
        """Measure the paths that are open."""
        while True:
            await self._handshake.sealed.wait()
            if self._epoch is not None:
                self.warm()
                if self._epoch.channel.open:
                    self._ping_channel(self._epoch)
            await asyncio.sleep(_PING_EVERY)
