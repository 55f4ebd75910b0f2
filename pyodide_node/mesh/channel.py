"""The direct path of a link: one WebRTC connection, tried again when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence

from pyodide_node.errors import KwaaiNetError, ProtocolError
from pyodide_node.hosts.base import Host, PeerConnection, PeerEvents, Route, Signal
from pyodide_node.wire import limits
from pyodide_node.wire.frames import Frame, fragments
from pyodide_node.wire.messages import IceServer, SignalMessage

__all__ = ["DirectChannel"]

_RETRY_FIRST, _RETRY_LAST = 2.0, 60.0


class DirectChannel:
    """Opens a data channel by signals that travel sealed; the initiator tries again on failure.

    `signal` sends a SignalMessage to the peer, `received` gets what the channel brings,
    `changed(open)` is called when it opens or is lost.
    """

    def __init__(
        self,
        host: Host,
        *,
        initiator: bool,
        ice_servers: Callable[[], Sequence[IceServer]],
        signal: Callable[[SignalMessage], None],
        received: Callable[[bytes], None],
        changed: Callable[[bool], None],
    ) -> None:
        self._host = host
        self._initiator = initiator
        self._ice_servers = ice_servers
        self._signal = signal
        self._received = received
        self._changed = changed
        self._attempt = 0
        self._connection: PeerConnection | None = None
        self._delay = _RETRY_FIRST
        self._signals: asyncio.Queue[SignalMessage] = asyncio.Queue(64)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Future[None]] = set()
        self._deadline: asyncio.TimerHandle | None = None
        self.open = False
        self.route: Route | None = None
        """How the open channel's packets travel, as far as the host can tell."""
        self.last_error = ""

    def start(self) -> None:
        self._spawn(self._take_signals())
        if self._initiator:
            self._begin(self._attempt + 1)

    def take_signal(self, message: SignalMessage) -> None:
        """What the peer signalled; more than a full queue of them is dropped as hostile."""
        if not self._signals.full():
            self._signals.put_nowait(message)

    async def send(self, frame: Frame) -> bool:
        """Send a frame in fragments, at the channel's pace; False when it closed meanwhile."""
        connection = self._connection
        for fragment in fragments(frame):
            if not self.open or connection is None or connection is not self._connection:
                return False
            connection.send(fragment)
            if connection.buffered > limits.HIGH_WATER:
                await connection.drain()
                await asyncio.sleep(0)  # it returns for a lost connection too: hear of that first
        return True

    @property
    def crowded(self) -> bool:
        """Whether so much waits to be sent that a measurement would tell of nothing else."""
        return self._connection is not None and self._connection.buffered > limits.LOW_WATER

    async def close(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        # What is closing already is waited for, never cancelled: its sockets would stay.
        await asyncio.gather(*tasks, *self._closing, return_exceptions=True)
        connection, self._connection, self.open = self._connection, None, False
        if connection is not None:
            await connection.close()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _begin(self, attempt: int) -> None:
        """A new connection in place of the last one."""
        self._drop()
        self._attempt = attempt

        def current() -> bool:
            return self._attempt == attempt and self._connection is not None

        def signal(signal: Signal) -> None:
            if self._attempt == attempt:
                self._signal(
                    SignalMessage(attempt, signal.kind, signal.sdp, signal.mid, signal.line)
                )

        def opened() -> None:
            if current():
                self.open, self._delay = True, _RETRY_FIRST
                self._changed(True)

        def received(data: bytes) -> None:
            if current():
                self._received(data)

        def closed(reason: str) -> None:
            if current():
                self._lost(reason)

        def routed(route: Route) -> None:
            if current():
                self.route = route

        try:
            self._connection = self._host.transport.connect(
                initiator=self._initiator,
                ice_servers=list(self._ice_servers()),
                events=PeerEvents(
                    signal=signal, opened=opened, received=received, closed=closed, routed=routed
                ),
            )
        except KwaaiNetError as error:
            self.last_error = str(error)
            return
        self._deadline = asyncio.get_running_loop().call_later(
            limits.ICE_DEADLINE, self._give_up, attempt
        )

    def _give_up(self, attempt: int) -> None:
        if self._attempt == attempt and self._connection is not None and not self.open:
            self._lost("no direct connection in time")

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        was_open, self.open, self.route = self.open, False, None
        if self._deadline is not None:
            self._deadline.cancel()
        if connection is not None:
            closing = asyncio.ensure_future(connection.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        if was_open:
            self._changed(False)

    def _lost(self, reason: str) -> None:
        self.last_error = reason
        self._drop()
        if self._initiator:
            self._spawn(self._retry(self._delay))
            self._delay = min(self._delay * 2, _RETRY_LAST)

    async def _retry(self, delay: float) -> None:
        attempt = self._attempt
        await asyncio.sleep(delay)
        if self._attempt == attempt:
            self._begin(attempt + 1)

    async def _take_signals(self) -> None:
        while True:
            message = await self._signals.get()
            if message.kind == "offer" and not self._initiator and message.attempt > self._attempt:
                self._begin(message.attempt)
            if message.attempt != self._attempt or self._connection is None:
                continue
            try:
                await self._connection.signal(
                    Signal(kind=message.kind, sdp=message.sdp, mid=message.mid, line=message.line)
                )
            except ProtocolError as error:
                self._lost(str(error))
