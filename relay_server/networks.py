"""What each network address may do: connections, handshakes, and rates that its nodes share."""

from __future__ import annotations

from typing import Final

from relay_server.addresses import network_of
from relay_server.rates import Rate
from relay_server.settings import RelaySettings

__all__ = ["Network", "Networks"]

_LAPSED: Final = 0.0


class Network:
    """One IPv4 address or one IPv6 /64. The states are those of `Rate`."""

    __slots__ = ("bytes", "connections", "entering", "joins", "messages", "publishes", "requests")

    def __init__(self) -> None:
        self.connections = 0
        """Of the mesh, those that are entering included."""
        self.entering = 0
        self.joins = self.messages = self.bytes = self.publishes = self.requests = _LAPSED

    def lapsed(self, now: float) -> bool:
        """Whether a new one would be the same: nobody is here, and nothing is remembered."""
        busy = max(self.joins, self.messages, self.bytes, self.publishes, self.requests)
        return not self.connections and busy <= now


class Networks:
    """Those that have been here lately. A rate outlives its connections: leaving and coming back
    gives nobody a new one."""

    def __init__(self, settings: RelaySettings) -> None:
        self._settings = settings
        self._networks: dict[str, Network] = {}
        burst = max(float(settings.max_per_address), 2 * settings.joins_per_address)
        self._joins = Rate(settings.joins_per_address, burst)
        self._messages = Rate(settings.messages_per_address, settings.messages_per_address)
        self._bytes = Rate(settings.bytes_per_address, settings.bytes_per_address)
        self._publishes = Rate(settings.publishes_per_address, 2 * burst)
        rate = settings.requests_per_address
        self._requests = Rate(rate, 10 * rate)

    def __len__(self) -> int:
        return len(self._networks)

    def of(self, address: str) -> Network:
        name = network_of(address)
        network = self._networks.get(name)
        if network is None:
            network = self._networks[name] = Network()
        return network

    def refuses(self, network: Network, now: float) -> str:
        """Why it gets no further connection; "" when it does, which then is counted as a join."""
        if network.connections >= self._settings.max_per_address:
            return "TooManyFromOneAddress"
        if network.entering >= self._settings.max_handshakes_per_address:
            return "TooManyHandshakes"
        spent = self._joins.spend(network.joins, now)
        if self._joins.excess(spent, now) > 0:
            return "TooManyJoins"
        network.joins = spent
        return ""

    def message(self, network: Network, now: float, count: int = 1) -> float:
        """A message, counted; the seconds by which its sender is too fast."""
        network.messages = self._messages.spend(network.messages, now, count)
        return self._messages.excess(network.messages, now)

    def read(self, network: Network, now: float, size: int) -> float:
        """Bytes read, of whole messages or not; the seconds by which their sender is too fast."""
        network.bytes = self._bytes.spend(network.bytes, now, size)
        return self._bytes.excess(network.bytes, now)

    def publishes_too_fast(self, network: Network, now: float) -> bool:
        """One announcement, counted."""
        network.publishes = self._publishes.spend(network.publishes, now)
        return self._publishes.excess(network.publishes, now) > 0

    def request(self, network: Network, now: float) -> float:
        """One HTTP request, counted; the seconds that it should wait."""
        network.requests = self._requests.spend(network.requests, now)
        return self._requests.excess(network.requests, now)

    def sweep(self, now: float) -> None:
        """Forget who is not here and owes nothing."""
        for name in [name for name, one in self._networks.items() if one.lapsed(now)]:
            del self._networks[name]
