"""WebSockets in the worker, WebRTC in whichever page is open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pyodide.ffi import create_proxy, to_js

from pyodide_node.errors import LocalError, ProtocolError, Unreachable
from pyodide_node.hosts.base import Buffer, PeerEvents, Signal
from pyodide_node.wire.limits import CHANNEL_MESSAGE
from pyodide_node.wire.messages import IceServer

from .errors import awaited, translated

__all__ = ["BrowserTransport"]

_KINDS = ("offer", "answer", "candidate")


class BrowserTransport:
    """See `base.Transport`."""

    def __init__(self, bridge: Any) -> None:
        self._bridge = bridge

    async def dial(
        self, url: str, received: Callable[[bytes], None], closed: Callable[[str], None]
    ) -> _Socket:
        callbacks = _Callbacks()
        hear = callbacks.add(lambda message: received(message.to_bytes()))
        end = callbacks.add_last(closed)
        try:
            return _Socket(await awaited(self._bridge.dial(url, hear, end), Unreachable, url=url))
        except Unreachable:
            callbacks.destroy()
            raise

    def connect(
        self, *, initiator: bool, ice_servers: Sequence[IceServer], events: PeerEvents
    ) -> _Peer:
        callbacks = _Callbacks()

        def signal(kind: str, sdp: str, mid: str, line: int) -> None:
            if kind in _KINDS:
                events.signal(Signal(kind=kind, sdp=sdp, mid=mid, line=line))  # type: ignore[arg-type]

        try:
            with translated(Unreachable):
                link = self._bridge.connect(
                    initiator,
                    to_js([(one.url, one.username, one.credential) for one in ice_servers]),
                    callbacks.add(signal),
                    callbacks.add(events.opened),
                    callbacks.add(events.routed),
                    callbacks.add(lambda message: events.received(message.to_bytes())),
                    callbacks.add_last(events.closed),
                )
        except Unreachable:
            callbacks.destroy()
            raise
        return _Peer(link)


class _Callbacks:
    """Functions that JavaScript may call until the last one has been."""

    def __init__(self) -> None:
        self._proxies: list[Any] = []

    def add(self, function: Callable[..., None]) -> Any:
        proxy = create_proxy(function)
        self._proxies.append(proxy)
        return proxy

    def add_last(self, function: Callable[[str], None]) -> Any:
        def last(reason: str) -> None:
            try:
                function(reason)
            finally:
                self.destroy()

        return self.add(last)

    def destroy(self) -> None:
        for proxy in self._proxies:
            proxy.destroy()
        self._proxies.clear()


class _Socket:
    def __init__(self, js: Any) -> None:
        self._js = js

    @property
    def buffered(self) -> int:
        return int(self._js.buffered())

    def send(self, data: Buffer) -> None:
        self._js.send(data)

    async def drain(self) -> None:
        await self._js.drain()

    async def close(self) -> None:
        self._js.close()


class _Peer(_Socket):
    async def signal(self, signal: Signal) -> None:
        if signal.kind not in _KINDS:
            raise ProtocolError(f"{signal.kind!r} is not a kind of description")
        # What the browser makes of the description comes back as `closed`, with its reason.
        self._js.signal(signal.kind, signal.sdp, signal.mid, signal.line)

    def send(self, data: Buffer) -> None:
        size = memoryview(data).nbytes
        if size > CHANNEL_MESSAGE:
            raise LocalError(f"{size} bytes in one channel message of at most {CHANNEL_MESSAGE}")
        super().send(data)
