"""Peers of libp2p in one trio loop: the bridge's own host, and strangers that send it anything."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

trio = pytest.importorskip("trio", reason="no libp2p: build/setup.sh federation")
pytest.importorskip("libp2p", reason="no libp2p: build/setup.sh federation")

from libp2p import new_host  # noqa: E402
from libp2p.peer.peerinfo import info_from_p2p_addr  # noqa: E402
from libp2p.utils.varint import read_varint_prefixed_bytes_limited  # noqa: E402
from multiaddr import Multiaddr  # noqa: E402

from relay_server.bridge import limits  # noqa: E402
from relay_server.bridge.host import DhtHost  # noqa: E402
from relay_server.bridge.messages import Method, protocol_of  # noqa: E402

__all__ = ["Stranger", "bridge_host", "run", "stranger"]

_LISTEN = "/ip4/127.0.0.1/tcp/0"
_DEADLINE = 60.0


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine function in trio, with a deadline."""

    async def bounded() -> None:
        with trio.fail_after(_DEADLINE):
            await test()

    trio.run(bounded)


@contextlib.asynccontextmanager
async def bridge_host(*first: DhtHost) -> AsyncIterator[DhtHost]:
    """A peer of the DHT that knows `first`."""
    host = DhtHost(os.urandom(32), _LISTEN, "", [one.addresses[0] for one in first])
    async with host.run():
        yield host


class Stranger:
    """A libp2p peer that says what it likes to `host`."""

    def __init__(self, libp2p: Any, host: DhtHost) -> None:
        self._libp2p = libp2p
        self._to = info_from_p2p_addr(Multiaddr(host.addresses[0]))
        self.peer: bytes = libp2p.get_id().to_bytes()

    async def open(self, method: Method = "rpc_find") -> Any:
        """A stream for one call."""
        return await self._libp2p.new_stream(self._to.peer_id, [protocol_of(method)])

    async def say(self, raw: bytes, method: Method = "rpc_find") -> bytes:
        """Send `raw`, whatever it is, and give what comes back; b"" when the stream is cut."""
        stream = None
        try:
            stream = await self.open(method)
            await stream.write(raw)
            answer: bytes = await read_varint_prefixed_bytes_limited(stream, 2 * limits.MESSAGE)
            return answer
        except Exception:  # libp2p's errors have no root
            return b""
        finally:
            if stream is not None:
                with contextlib.suppress(Exception):
                    await stream.reset()


@contextlib.asynccontextmanager
async def stranger(host: DhtHost) -> AsyncIterator[Stranger]:
    listen = Multiaddr(_LISTEN)
    libp2p: Any = new_host(listen_addrs=[listen])
    async with libp2p.run(listen_addrs=[listen]):
        await libp2p.connect(info_from_p2p_addr(Multiaddr(host.addresses[0])))
        try:
            yield Stranger(libp2p, host)
        finally:
            for peer in list(libp2p.get_connected_peers()):
                await libp2p.disconnect(peer)
