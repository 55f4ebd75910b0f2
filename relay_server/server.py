"""uvicorn, as a part of a program that has other parts."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final, cast

import uvicorn
from starlette.types import ASGIApp

from pyodide_node.wire import limits
from relay_server.http import HttpConnection, Upgrades
from relay_server.hub import Hub
from relay_server.map.network import NetworkMap
from relay_server.map.socket import PATH, MapSocket
from relay_server.settings import HTTP_HEAD
from relay_server.websocket import MeshSocket

__all__ = ["Server", "server_config"]

_BACKLOG: Final = 2048
"""Nodes of a whole network may come back in one second after a restart."""

_GRACE: Final = 3
"""Seconds for downloads and closing handshakes when the relay stops."""


def server_config(
    app: ASGIApp,
    hub: Hub,
    network: NetworkMap | None = None,
    *,
    cert: Path | None = None,
    key: Path | None = None,
) -> uvicorn.Config:
    """HTTP for `app`; the mesh, or the map's feed, for those who ask for an upgrade."""
    sockets = Upgrades(functools.partial(MeshSocket, hub))
    if network is not None:
        feed = functools.partial(MapSocket, network, hub.settings.trusted_proxies)
        sockets.by_path[PATH.encode()] = feed
    return uvicorn.Config(
        app,
        http=cast(Any, functools.partial(HttpConnection, hub.gate)),
        h11_max_incomplete_event_size=HTTP_HEAD,
        ws=cast(Any, sockets),
        lifespan="off",
        log_config=None,
        access_log=False,  # it would write addresses down
        proxy_headers=False,
        server_header=False,
        backlog=_BACKLOG,
        ssl_certfile=cert,
        ssl_keyfile=key,
    )


class Server(uvicorn.Server):
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
        # As uvicorn's, with a deadline for TLS handshakes, which are cheap to leave half done.
        config, loop = self.config, asyncio.get_running_loop()

        def connection() -> asyncio.Protocol:
            made = cast(Any, config.http_protocol_class)
            state = self.server_state
            protocol: asyncio.Protocol = made(
                config=config, server_state=state, app_state={}, _loop=loop
            )
            return protocol

        self.servers = [
            await loop.create_server(
                connection,
                sock=listener,
                ssl=config.ssl,
                backlog=config.backlog,
                ssl_handshake_timeout=limits.HANDSHAKE_DEADLINE if config.ssl else None,
            )
            for listener in sockets or []
        ]
        self.started = True
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
