"""A WebSocket to a relay, by `websockets`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from pyodide_node.errors import Unreachable
from pyodide_node.hosts.base import Buffer
from pyodide_node.wire.limits import LOW_WATER, SOCKET_MESSAGE

__all__ = ["NativeSocket", "dial"]

DIAL_DEADLINE = 10.0
CLOSE_DEADLINE = 2.0
"""Seconds for what is still queued to leave, and again for the closing handshake."""


async def dial(
    url: str, received: Callable[[bytes], None], closed: Callable[[str], None]
) -> NativeSocket:
    """See `base.Transport.dial`."""
    try:
        socket = await connect(
            url,
            max_size=SOCKET_MESSAGE,
            compression=None,  # frames are ciphertext and floats; deflate only costs
            open_timeout=DIAL_DEADLINE,
            close_timeout=CLOSE_DEADLINE,
        )
    # TimeoutError is an OSError; ImportError is a SOCKS proxy in the environment.
    except (OSError, WebSocketException, ValueError, ImportError) as error:
        raise Unreachable(f"{url} does not answer: {error}", url=url) from error
    return NativeSocket(socket, received, closed)


class NativeSocket:
    """See `base.RelaySocket`. One task reads and one writes until the socket has closed."""

    def __init__(
        self,
        socket: ClientConnection,
        received: Callable[[bytes], None],
        closed: Callable[[str], None],
    ) -> None:
        self._socket = socket
        self._received = received
        self._closed = closed
        self._queue: deque[bytes] = deque()
        self._buffered = 0
        self._more = asyncio.Event()
        self._low = asyncio.Event()
        self._low.set()
        self._closing = False
        self._writer = asyncio.create_task(self._write(), name="kwaainet socket writer")
        self._reader = asyncio.create_task(self._read(), name="kwaainet socket reader")

    @property
    def buffered(self) -> int:
        return self._buffered

    def send(self, data: Buffer) -> None:
        if self._closing:
            return
        message = bytes(data)
        self._queue.append(message)
        self._buffered += len(message)
        if self._buffered >= LOW_WATER:
            self._low.clear()
        self._more.set()

    async def drain(self) -> None:
        await self._low.wait()

    async def close(self) -> None:
        self._closing = True
        self._more.set()
        await asyncio.wait([self._writer], timeout=CLOSE_DEADLINE)
        await self._socket.close()
        await asyncio.wait([self._reader])

    async def _write(self) -> None:
        try:
            while self._queue or not self._closing:
                if not self._queue:
                    self._more.clear()
                    await self._more.wait()
                    continue
                message = self._queue.popleft()
                await self._socket.send(message)
                self._buffered -= len(message)
                if self._buffered < LOW_WATER:
                    self._low.set()
        except ConnectionClosed:
            pass  # the reader says so

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        reason = "closed here"
        try:
            async for message in self._socket:
                # By way of the loop: what a callback raises must not end this task.
                if isinstance(message, bytes):
                    loop.call_soon(self._received, message)
            reason = "closed by the relay" if not self._closing else reason
        except ConnectionClosed as error:
            reason = f"connection lost: {error}"
        finally:
            self._closing = True
            self._buffered = 0
            self._queue.clear()
            self._low.set()
            self._writer.cancel()
            await asyncio.wait([self._writer])
            self._closed(reason)
