"""Real networks: relays by `websockets`, peers by aiortc."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyodide_node.hosts.base import PeerEvents
from pyodide_node.wire.messages import IceServer

from .peer import NativePeer
from .relay_socket import NativeSocket, dial

__all__ = ["NativeTransport"]


class NativeTransport:
    """See `base.Transport`."""

    async def dial(
        self, url: str, received: Callable[[bytes], None], closed: Callable[[str], None]
    ) -> NativeSocket:
        return await dial(url, received, closed)

    def connect(
        self, *, initiator: bool, ice_servers: Sequence[IceServer], events: PeerEvents
    ) -> NativePeer:
        return NativePeer(initiator=initiator, ice_servers=ice_servers, events=events)
