"""Which STUN and TURN servers a node is told of."""

from __future__ import annotations

from pyodide_node.hosts.base import Clock
from pyodide_node.wire.messages import IceServer, IceServers
from relay_server.node import Node
from relay_server.settings import RelaySettings
from relay_server.turn import turn_access

__all__ = ["Ice"]


class Ice:
    """Raises ConfigError when the TURN secret of the settings cannot be read."""

    def __init__(self, settings: RelaySettings, clock: Clock) -> None:
        self.stun_port: int | None = None
        """Of this relay's own STUN, while it answers."""
        self._servers = settings.ice_servers
        self._clock = clock
        self._turn = turn_access(settings)

    def stun(self, host: str) -> list[str]:
        """Addresses for a node that dialled `host`."""
        name, _, port = host.rpartition(":")
        if not port.isdigit():
            name = host
        if self._servers or self.stun_port is None or not name:
            return list(self._servers)
        return [f"stun:{name}:{self.stun_port}"]

    def turn(self, node: Node) -> IceServers | None:
        """All servers, TURN's with credentials of its own, for a node that has proved its key; None
        where there is no TURN. Says in the node when it should have new ones."""
        if self._turn is None:
            return None
        servers = [IceServer(url) for url in self.stun(node.host)]
        servers += self._turn.for_node(node.key, self._clock.wall())
        node.renew_turn_at = self._clock.monotonic() + self._turn.renew_after
        return IceServers(servers)
