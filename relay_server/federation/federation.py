"""A relay among relays: libp2p on a thread of its own (it speaks trio), and the hub beside it."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final
from urllib.parse import urlsplit

import trio
from multiaddr import Multiaddr

from pyodide_node.errors import ConfigError, ProtocolError, RecordError
from pyodide_node.hosts.native.keys import load_keys, load_seed
from pyodide_node.mesh.peer import peer_id, public_key_of
from pyodide_node.wire.relays import RelayInfo, announce_relay, decode_relay_url, public
from relay_server.federation.ledger import Changes, Ledger
from relay_server.federation.network import Network, NetworkOptions
from relay_server.hub import Hub, Neighbour
from relay_server.settings import RelaySettings

__all__ = ["KEY_FILE", "Federation"]

KEY_FILE: Final = "identity.pem"
"""In the relay's state directory: who it is, to other relays and to nodes."""

_RECORD_EVERY: Final = 60.0
_START_DEADLINE: Final = 20.0
_STOP_DEADLINE: Final = 10.0


class Federation:
    """`async with Federation(settings, hub, url)`; `url` is what nodes dial here.

    Raises ConfigError when the settings make no sense or libp2p cannot listen.
    """

    def __init__(self, settings: RelaySettings, hub: Hub, url: str) -> None:
        if settings.state is None:
            raise ConfigError("a relay that others know needs a directory for its key: --state")
        try:
            Multiaddr(settings.federation)
        except ValueError as error:
            raise ConfigError(
                f"--federation must be a multiaddr such as /ip4/0.0.0.0/tcp/4001: {error}",
                setting="federation",
            ) from error
        try:
            decode_relay_url(url)
            only = [public_key_of(name) for name in settings.relays_only]
        except RecordError as error:
            raise ConfigError(f"--public-url {url}: {error}", setting="public_url") from error
        except ProtocolError as error:
            raise ConfigError(
                f"--relay-only takes peer ids ({error})", setting="relays_only"
            ) from error
        self._hub = hub
        self._url = url
        self._keys = load_keys(settings.state / KEY_FILE)
        key = self._keys.public_key
        bootstrap = {_relay_of(address): address for address in settings.bootstrap}
        bootstrap.pop(key, None)
        self.ledger = Ledger(
            key,
            max_relays=settings.max_relays,
            max_records=settings.max_relay_records,
            max_per_relay=min(settings.max_relay_records, settings.max_records_per_relay),
            only=only,
            pinned=bootstrap,
        )
        options = NetworkOptions(
            seed=load_seed(settings.state / KEY_FILE),
            key=key,
            listen=settings.federation,
            bootstrap={peer_id(relay): address for relay, address in bootstrap.items()},
            max_peers=settings.max_relay_peers,
            public=public(urlsplit(url).hostname or ""),
        )
        self.network = Network(options, self.ledger, self._tell, hub.counters)
        self._loop: asyncio.AbstractEventLoop
        self._token: trio.lowlevel.TrioToken
        self._stop: trio.Event
        self._thread = threading.Thread(target=self._work, name="libp2p", daemon=True)
        self._up: asyncio.Future[None]
        self._record = b""
        self._refreshing: asyncio.Task[None]

    @property
    def key(self) -> bytes:
        return self._keys.public_key

    @property
    def addresses(self) -> list[str]:
        """What other relays are given as --bootstrap."""
        return [f"{address}/p2p/{peer_id(self.key)}" for address in self._dialled()]

    async def __aenter__(self) -> Federation:
        self._loop = asyncio.get_running_loop()
        self._up = self._loop.create_future()
        self._thread.start()
        try:
            async with asyncio.timeout(_START_DEADLINE):
                await self._up
        except TimeoutError:
            raise ConfigError("libp2p does not start", setting="federation") from None
        self._hub.key = self.key
        self._hub.announced = self._announced
        self._hub.departed = self._departed
        await self._renew()
        self._hub.neighbours = [Neighbour(self.key, self._url, len(self._hub), own=True)]
        self._refreshing = asyncio.create_task(self._refresh(), name="relay record")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._refreshing.cancel()
        await asyncio.gather(self._refreshing, return_exceptions=True)
        self._in_trio(lambda: self._stop.set())
        await asyncio.to_thread(self._thread.join, _STOP_DEADLINE)

    async def look_up(self, kind: str, key: bytes) -> bytes | None:
        """A record by way of the DHT; None when nobody has it."""
        found: asyncio.Future[bytes | None] = self._loop.create_future()

        async def ask() -> None:
            record = await self.network.lookup.get(kind, key)
            self._loop.call_soon_threadsafe(found.set_result, record)

        self._in_trio(lambda: trio.lowlevel.spawn_system_task(ask))
        return await found

    # --- between the two worlds -------------------------------------------------------------

    def _work(self) -> None:
        async def main() -> None:
            self._token, self._stop = trio.lowlevel.current_trio_token(), trio.Event()
            await self.network.run(lambda: self._settle(None), self._stop)

        try:
            trio.run(main)
        except BaseException as error:
            self._settle(error)

    def _settle(self, error: BaseException | None) -> None:
        def settle() -> None:
            if self._up.done():
                return
            if error is None:
                self._up.set_result(None)
            else:
                root = _root(error)
                named = ConfigError(f"libp2p does not start: {root}", setting="federation")
                self._up.set_exception(root if isinstance(root, ConfigError) else named)

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(settle)

    def _in_trio(self, call: Callable[[], object]) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(call)

    def _tell(self, changes: Changes) -> None:
        relays = [(one.key, one.signed, one.info.url, len(one.nodes)) for one in self.ledger.relays]
        with contextlib.suppress(RuntimeError):  # as above
            self._loop.call_soon_threadsafe(self._follow, changes, relays)

    # --- in the relay's loop ----------------------------------------------------------------

    def _announced(self, key: bytes, signed: bytes) -> None:
        self._in_trio(lambda: self.network.announced(key, signed))

    def _departed(self, key: bytes) -> None:
        self._in_trio(lambda: self.network.departed(key))

    def _follow(self, changes: Changes, relays: list[tuple[bytes, bytes, str, int]]) -> None:
        for node, home in changes.departed:
            self._hub.forget(node, home)
        for record, signed in changes.announced:
            # A full directory, or a node whose record expired on the way here.
            with contextlib.suppress(RecordError):
                self._hub.admit(record, signed)
        self._hub.neighbours = [
            Neighbour(self.key, self._url, len(self._hub), own=True),
            *(Neighbour(key, url, nodes) for key, _, url, nodes in relays),
        ]
        self._hub.tell_relays(
            [self._record, *(signed for _, signed, _, _ in relays)], aloud=changes.relays
        )

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(_RECORD_EVERY)
            await self._renew()

    async def _renew(self) -> None:
        info = RelayInfo(self._url, self._dialled())
        record = self._record = await announce_relay(self._keys, info, time.time())
        self._in_trio(lambda: self.network.introduce(record))
        self._hub.tell_relays([record, *self._hub.relays.records[1:]], aloud=False)

    def _dialled(self) -> list[str]:
        """Where it listens, by the public name where that is everywhere."""
        host = urlsplit(self._url).hostname or ""
        return [_named(address, host) for address in self.network.addresses[:8]]


def _named(address: str, host: str) -> str:
    _, at, rest = address.removeprefix("/").split("/", 2)
    if at not in ("0.0.0.0", "::"):  # noqa: S104 - not bound here, only named
        return address
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return f"/dns/{host}/{rest}"
    return f"/ip{version}/{host}/{rest}"


def _relay_of(address: str) -> bytes:
    """The key in a multiaddr. Raises ConfigError."""
    try:
        return public_key_of(str(Multiaddr(address)).partition("/p2p/")[2])
    except (ValueError, ProtocolError) as error:
        raise ConfigError(
            f"--bootstrap {address} must be a multiaddr that ends in /p2p/ and a relay's peer id",
            setting="bootstrap",
        ) from error


def _root(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
