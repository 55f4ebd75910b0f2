"""The relay as one object: listens, serves, sweeps, and stops in good order."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Generator
from types import TracebackType
from typing import Any, Final, cast

import uvicorn

from pyodide_node.errors import ConfigError
from pyodide_node.hosts.base import Clock
from relay_server.app import make_app
from relay_server.clock import SystemClock
from relay_server.http import HttpConnection
from relay_server.hub import Hub
from relay_server.settings import RelaySettings
from relay_server.stun import StunServer
from relay_server.websocket import MeshSocket

__all__ = ["Relay"]

_BACKLOG: Final = 2048
"""Nodes of a whole network may come back in one second after a restart."""

_GRACE: Final = 3
"""Seconds for downloads and closing handshakes when the relay stops."""

_PORT_TRIES: Final = 16
"""A free TCP port may be taken as a UDP one; how often another is tried."""


class Relay:
    """`async with Relay(settings) as relay: relay.url`, in the caller's event loop.

    Raises ConfigError when it cannot listen.
    """

    def __init__(self, settings: RelaySettings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.hub = Hub(settings, clock or SystemClock())
        self.port = 0
        self._server: _Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._stun: asyncio.DatagramTransport | None = None

    @property
    def url(self) -> str:
        """Where pages and files are, e.g. "http://127.0.0.1:8080"."""
        return f"{'https' if self.settings.tls_cert else 'http'}://{self._netloc}"

    @property
    def mesh_url(self) -> str:
        """What a node dials, e.g. "ws://127.0.0.1:8080/mesh"."""
        return f"{'wss' if self.settings.tls_cert else 'ws'}://{self._netloc}/mesh"

    @property
    def _netloc(self) -> str:
        host = self.settings.host
        if host in ("0.0.0.0", "::", ""):  # noqa: S104 - not bound here, only named
            host = "localhost"
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    async def __aenter__(self) -> Relay:
        listener = await self._listen()
        settings = self.settings
        config = uvicorn.Config(
            make_app(settings, self.hub),
            http=HttpConnection,
            ws=cast(Any, functools.partial(MeshSocket, self.hub)),
            lifespan="off",
            log_config=None,
            access_log=False,  # it would write addresses down
            proxy_headers=False,
            server_header=False,
            backlog=_BACKLOG,
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
        )
        self._server = _Server(config)
        serving = asyncio.create_task(self._server.serve([listener]), name="relay http")
        self._tasks = [serving, asyncio.create_task(self._sweep(), name="relay sweep")]
        await self._server.up.wait()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stun is not None:
            self._stun.close()
        serving, sweeping = self._tasks
        sweeping.cancel()
        if self._server is not None:
            self._server.stop()
        await asyncio.gather(serving, sweeping, return_exceptions=True)
        for node in self.hub:  # those who did not answer the closing handshake
            node.socket.abort()

    async def _listen(self) -> socket.socket:
        """Bind TCP, and UDP of the same number; any free number for port 0."""
        for _ in range(_PORT_TRIES):
            listener = _bound(self.settings.host, self.settings.port)
            self.port = listener.getsockname()[1]
            if not self.settings.stun:
                return listener
            try:
                self._stun, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                    lambda: StunServer(self.hub.counters),
                    local_addr=listener.getsockname()[:2],
                )
            except OSError:
                listener.close()
                if self.settings.port:
                    break
            else:
                self.hub.stun_port = self.port
                return listener
        raise ConfigError(
            f"UDP port {self.port} is taken, so STUN cannot answer there; "
            "choose another --port, or --no-stun",
            setting="port",
        )

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.settings.sweep_every)
            self.hub.sweep()


class _Server(uvicorn.Server):
    """uvicorn in somebody else's loop: no signal handlers, and a stop that does not poll."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        self._stopping.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        await self.on_tick(0)
        self.up.set()

    async def main_loop(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._stopping.wait()
            await self.on_tick(0)  # the Date header

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # uvicorn's own takes a tenth of a second at the least, and a relay's user waits for it.
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                while state.connections or state.tasks:  # noqa: ASYNC110 - uvicorn has no event
                    await asyncio.sleep(0.005)
        for task in list(state.tasks):
            task.cancel()


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, proto)
    except OSError as error:
        raise ConfigError(f"{host} is no address of this machine ({error})") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"{host}:{port} cannot be listened on ({error.strerror}); choose another --port",
            setting="port",
        ) from error
    return listener
