"""The node's connection to its relay: enters, stays, comes back when it is lost."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from pyodide_node.errors import KwaaiNetError, ProtocolError, Unreachable
from pyodide_node.hosts.base import Buffer, Host, RelaySocket
from pyodide_node.wire import limits
from pyodide_node.wire.frames import Reassembler, encode
from pyodide_node.wire.messages import (
    Challenge,
    Hello,
    IceServer,
    IceServers,
    Message,
    Ping,
    Pong,
    Refused,
    Welcome,
    decode,
    hello_bytes,
    to_frame,
)

__all__ = ["RelayClient"]

_PING_EVERY = 20.0
"""Below the 30 to 60 s after which NATs and proxies forget a silent connection."""
_SILENCE = 50.0
"""A relay that has said nothing for two pings is lost, whatever the socket says."""
_BACKOFF_FIRST, _BACKOFF_LAST = 2.0, 30.0
"""Seconds within which a node comes back. After a restart all nodes come at the same time: a relay
lets some 1,500 a second in."""
_STEADY = 30.0
"""A connection that stood for so long was none of a relay that is in trouble."""


class RelayClient:
    """Keeps one connection open to the first of `urls` that answers.

    `received(message, payload)` is called for all but the messages of the connection itself;
    `changed(connected)` when it is entered or lost. One that does not `stay` tries each once.
    """

    def __init__(
        self,
        host: Host,
        urls: Sequence[str],
        received: Callable[[Message, Buffer], None],
        changed: Callable[[bool], None],
        *,
        stay: bool = True,
    ) -> None:
        self._host = host
        self._urls = list(urls)
        self._received = received
        self._changed = changed
        self._socket: RelaySocket | None = None
        self._sequence = 0
        self._heard = 0.0
        self._entered_at = math.inf
        self._task: asyncio.Task[None] | None = None
        self._entered = asyncio.Event()
        self._settled = asyncio.Event()
        """Entered, or given up."""
        self.stay = stay
        self._jitter = random.Random(host.keys.public_key)  # noqa: S311 - spreads reconnects
        self.url = ""
        self.relay = b""
        """The key of the relay at `url`, once it has named it."""
        self.ice_servers: list[IceServer] = []
        self.last_error = ""
        self.rtt: float | None = None

    @property
    def connected(self) -> bool:
        return self._entered.is_set()

    def offer(self, urls: Sequence[str]) -> None:
        """Try these from the next time on that the connection is lost."""
        self._urls = list(urls)

    def start(self) -> None:
        """Connect, and reconnect for ever; see `last_error` for why it has not yet."""
        self._task = asyncio.create_task(self._keep(), name="relay client")

    async def entered(self, timeout: float) -> None:
        """Wait for the relay. Raises Unreachable with the reason."""
        try:
            async with asyncio.timeout(timeout):
                await self._settled.wait()
        except TimeoutError:
            pass
        if not self.connected:
            reason = self.last_error or "no answer"
            raise Unreachable(
                f"no relay answers ({reason}); check the address or try another relay",
                urls=self._urls,
            )

    def send(self, message: Message, payload: Buffer = b"") -> bool:
        """Queue a message; False when there is no relay just now."""
        if self._socket is None or not self.connected:
            return False
        self._send(message, payload)
        return True

    async def drain(self) -> None:
        if self._socket is not None and self._socket.buffered > limits.HIGH_WATER:
            await self._socket.drain()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _keep(self) -> None:
        delay = _BACKOFF_FIRST
        while True:
            for url in list(self._urls):
                self._entered_at = math.inf
                try:
                    await self._visit(url)
                except KwaaiNetError as error:
                    self.last_error = str(error)
                stood = self._host.clock.monotonic() - self._entered_at
                if stood >= 0:  # a relay that was lost, maybe with thousands of others: wait first
                    delay = _BACKOFF_FIRST if stood > _STEADY else delay
                    break
            if not self.stay:
                self._settled.set()
                return
            await asyncio.sleep(delay * self._jitter.random())
            delay = min(delay * 2, _BACKOFF_LAST)

    async def _visit(self, url: str) -> None:
        """One connection, until it is lost. Raises Unreachable or ProtocolError before entry."""
        inbox: asyncio.Queue[bytes | str] = asyncio.Queue()
        socket = await self._host.transport.dial(url, inbox.put_nowait, inbox.put_nowait)
        if url != self.url:
            self.url, self.relay = url, b""
        self._socket, self._sequence = socket, 0
        self._heard = self._host.clock.monotonic()
        pinger: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(limits.HANDSHAKE_DEADLINE):
                reader = Reassembler()
                await self._enter(url, inbox, reader)
            pinger = asyncio.create_task(self._ping(inbox), name="relay ping")
            self._entered_at = self._host.clock.monotonic()
            self._entered.set()
            self._settled.set()
            self._changed(True)
            while isinstance(data := await inbox.get(), bytes):
                self._take(data, reader)
            self.last_error = data
        except TimeoutError:
            raise Unreachable("the relay did not finish the handshake", url=url) from None
        finally:
            if pinger is not None:
                pinger.cancel()
            self._socket = None
            if self._entered.is_set():
                self._entered.clear()
                self._settled.clear()
                self._changed(False)
            await socket.close()

    async def _enter(
        self, url: str, inbox: asyncio.Queue[bytes | str], reader: Reassembler
    ) -> None:
        challenge = await self._expect(inbox, reader)
        if not isinstance(challenge, Challenge):
            raise ProtocolError("the relay did not begin with a challenge", url=url)
        audience = urlsplit(url).netloc.lower()
        signature = await self._host.keys.sign(hello_bytes(challenge.nonce, audience))
        self._send(Hello(self._host.keys.public_key, audience, signature))
        welcome = await self._expect(inbox, reader)
        if not isinstance(welcome, Welcome):
            raise ProtocolError("the relay did not welcome this node", url=url)
        self.ice_servers = [IceServer(url) for url in welcome.ice_servers]

    async def _expect(self, inbox: asyncio.Queue[bytes | str], reader: Reassembler) -> Message:
        while True:
            data = await inbox.get()
            if isinstance(data, str):
                raise Unreachable(f"the relay closed the connection ({data})")
            frame = reader.feed(data)
            if frame is None:
                continue
            message = decode(frame)
            if isinstance(message, Refused):
                raise Unreachable(f"the relay refused this node: {message.message}")
            return message

    def _take(self, data: bytes, reader: Reassembler) -> None:
        self._heard = now = self._host.clock.monotonic()
        frame = reader.feed(data)
        if frame is None:
            return
        match decode(frame):
            case Ping(token):
                self._send(Pong(token))
            case IceServers(servers):
                self.ice_servers = list(servers)
            case Pong(token):
                self.rtt = max(0.0, now - token / 1e6)
            case Refused(_, message):
                raise Unreachable(f"the relay refused this node: {message}")
            case message:
                self._received(message, frame.payload)

    def _send(self, message: Message, payload: Buffer = b"") -> None:
        if self._socket is not None:
            frame = to_frame(message, payload, sequence=self._sequence)
            self._sequence = (self._sequence + 1) & 0xFFFF_FFFF
            self._socket.send(encode(frame))

    async def _ping(self, inbox: asyncio.Queue[bytes | str]) -> None:
        while True:
            now = self._host.clock.monotonic()
            if now - self._heard > _SILENCE:
                inbox.put_nowait("the relay fell silent")
                return
            self._send(Ping(int(now * 1e6)))
            await asyncio.sleep(_PING_EVERY)
