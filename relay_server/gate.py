"""How many HTTP connections there may be, how fast their requests may come, and for how long."""

from __future__ import annotations

from collections import Counter

from pyodide_node.hosts.base import Clock
from relay_server.addresses import network_of
from relay_server.counters import Counters
from relay_server.http import HttpConnection
from relay_server.networks import Networks
from relay_server.settings import HTTP_WAIT, RelaySettings

__all__ = ["Gate"]


class Gate:
    """Reverse proxies that the operator trusts have no limit of their own but the one of all."""

    def __init__(
        self, settings: RelaySettings, networks: Networks, counters: Counters, clock: Clock
    ) -> None:
        self._settings = settings
        self._networks = networks
        self._counters = counters
        self._clock = clock
        self._here: dict[HttpConnection, str] = {}
        self._of_network: Counter[str] = Counter()

    def __len__(self) -> int:
        """HTTP connections."""
        return len(self._here)

    def now(self) -> float:
        return self._clock.monotonic()

    def enter(self, connection: HttpConnection, address: str) -> bool:
        """Whether there is room for it."""
        settings = self._settings
        network = "" if address in settings.trusted_proxies else network_of(address)
        crowded = network and self._of_network[network] >= settings.max_http_per_address
        if crowded or len(self._here) >= settings.max_http:
            self._counters.refused["TooManyRequests"] += 1
            return False
        self._here[connection] = network
        self._of_network[network] += 1
        return True

    def leave(self, connection: HttpConnection) -> None:
        """It is closed, or a WebSocket now; a second call is harmless."""
        network = self._here.pop(connection, None)
        if network is not None:
            self._of_network[network] -= 1
            if not self._of_network[network]:
                del self._of_network[network]

    def pause(self, address: str) -> float:
        """One request of this address, counted; seconds that it should wait."""
        return self._networks.request(self._networks.of(address), self.now())

    def sweep(self) -> None:
        """Cut those that have kept a place for too long."""
        now = self.now()
        for connection in [one for one in self._here if one.overdue(now, HTTP_WAIT)]:
            self._counters.refused["Overdue"] += 1
            connection.transport.abort()
