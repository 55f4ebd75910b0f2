"""The relay as one object: listens, serves, sweeps, and stops in good order."""

from __future__ import annotations

import asyncio
import socket
import warnings
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final

from pyodide_node.errors import ConfigError
from pyodide_node.hosts.base import Clock
from relay_server.app import make_app
from relay_server.certificate import Certificate
from relay_server.clock import SystemClock
from relay_server.hub import Hub
from relay_server.logs import LOG
from relay_server.map.network import NetworkMap
from relay_server.map.service import MapService
from relay_server.private_logs import keep_addresses_out
from relay_server.server import Server, server_config
from relay_server.settings import RelaySettings
from relay_server.stun import StunServer
from relay_server.traffic import Traffic

__all__ = ["Relay"]

_PORT_TRIES: Final = 16
"""A free TCP port may be taken as a UDP one; how often another is tried."""


class Relay:
    """`async with Relay(settings) as relay: relay.url`, in the caller's event loop.

    Raises ConfigError when it cannot listen, StoreError when its state cannot be read.
    """

    def __init__(self, settings: RelaySettings, clock: Clock | None = None) -> None:
        self.settings = settings
        self._clock = clock or SystemClock()
        self.hub = Hub(settings, self._clock)
        self.port = 0
        self.map: NetworkMap
        """There as soon as the relay runs."""
        self.addresses: list[str] = []
        """What other relays take as --bootstrap; none when this one is alone."""
        self._server: Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._stun: asyncio.DatagramTransport | None = None
        self._stack = AsyncExitStack()

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
        settings = self.settings
        keep_addresses_out()
        async with AsyncExitStack() as stack:
            listener = await self._listen()
            stack.callback(listener.close)
            api = None
            if settings.api:
                # An engine and WebRTC come with it: a relay without it should not wait for them.
                from relay_server.api.service import ApiService

                api = await stack.enter_async_context(ApiService(settings, self.hub, self._clock))
            network = MapService(settings, self.hub, self._clock)
            await stack.enter_async_context(network)
            self.map = network.map
            if settings.federation:
                # libp2p comes with it: an optional part of this package.
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")  # libp2p's, of other packages' old names
                        from relay_server.federation.federation import Federation
                except ImportError as error:
                    raise ConfigError(
                        f"--federation needs libp2p ({error}): pip install 'kwaainet[federation]'",
                        setting="federation",
                    ) from error
                federation = Federation(settings, self.hub, settings.public_url or self.mesh_url)
                await stack.enter_async_context(federation)
                self.addresses = federation.addresses
            app = make_app(settings, self.hub, network, api.app if api is not None else None)
            config = server_config(
                app, self.hub, network.map, cert=settings.tls_cert, key=settings.tls_key
            )
            self._server = Server(config)
            serving = asyncio.create_task(self._server.serve([listener]), name="relay http")
            await self._server.up.wait()
            self._tasks = [serving, asyncio.create_task(self._sweep(), name="relay sweep")]
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stun is not None:
            self._stun.close()
        # Not the nodes leave but the relay: others need not think so.
        self.hub.departed = lambda key: None
        serving, sweeping = self._tasks
        if self._server is not None:
            self._server.stop()
        await asyncio.gather(serving, return_exceptions=True)
        await self._stack.aclose()
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)
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
                self.hub.ice.stun_port = self.port
                return listener
        raise ConfigError(
            f"UDP port {self.port} is taken, so STUN cannot answer there; "
            "choose another --port, or --no-stun",
            setting="port",
        )

    def _certificate(self) -> Certificate | None:
        context = self._server.config.ssl if self._server is not None else None
        cert, key = self.settings.tls_cert, self.settings.tls_key
        if context is None or cert is None or key is None:
            return None
        return Certificate(context, cert, key)

    async def _sweep(self) -> None:
        traffic = Traffic(self.hub, self._clock.monotonic())
        certificate = self._certificate()
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self.settings.sweep_every
            await asyncio.sleep(self.settings.sweep_every)
            self.hub.counters.loop_delay.observe(max(0.0, loop.time() - due))
            self.hub.sweep()
            if certificate is not None:
                certificate.look()
            if (fields := traffic.look(self._clock.monotonic())) is not None:
                LOG.info("traffic", **fields)


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
