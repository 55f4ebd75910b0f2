"""Sockets and peer connections over a `SimulatedNetwork`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from pyodide_node.errors import Unreachable
from pyodide_node.hosts.base import PeerEvents
from pyodide_node.wire.messages import IceServer

from .network import SimulatedNetwork
from .peer import SimulatedPeer
from .pipe import Pipe
from .relay import RelayConnection

__all__ = ["DIAL_DEADLINE", "SimulatedTransport"]

DIAL_DEADLINE = 10.0
"""Seconds after which a relay that does not answer is given up."""


class SimulatedTransport:
    """See `base.Transport`."""

    def __init__(self, network: SimulatedNetwork, here: str) -> None:
        self._network = network
        self._here = here

    async def dial(
        self, url: str, received: Callable[[bytes], None], closed: Callable[[str], None]
    ) -> Pipe:
        network, here = self._network, self._here
        if not network.reachable(here, url):
            # A dead relay's machine refuses at once; behind a cut link nobody does.
            up = network.alive(here) and network.link(here, url).up
            await asyncio.sleep(2 * network.link(here, url).delay if up else DIAL_DEADLINE)
            raise Unreachable(f"{url} does not answer", url=url)
        await asyncio.sleep(2 * 2 * network.link(here, url).delay)  # TCP, then the upgrade
        handler = network.handler(url)
        if handler is None or not network.reachable(here, url):
            raise Unreachable(f"{url} does not answer", url=url)
        mine, its = network.join(here, url)
        mine.received, mine.closed = received, closed
        connection = RelayConnection(its)

        async def serve() -> None:
            try:
                await handler(connection)
            finally:
                await connection.close()

        network.serve(url, serve())
        return mine

    def connect(
        self, *, initiator: bool, ice_servers: Sequence[IceServer], events: PeerEvents
    ) -> SimulatedPeer:
        return SimulatedPeer(self._network, self._here, initiator, events)
