"""What the operator of a bridge may set."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import Parameter

from pyodide_node.errors import ConfigError
from relay_server.bridge.addresses import ADDRESS, peer_of
from relay_server.commands.node_options import DEFAULT_RELAY

__all__ = ["BridgeSettings", "State"]

State = Literal["joining", "online"]
"""Petals' names for what a server is: about to serve, or serving."""

_RELAY: Final = re.compile(r"https?://[^\s?#]+")
_PREFIX: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LISTED: Final = Parameter(alias="--bootstrap", negative=(), show_default=False)


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeSettings:
    """Times in seconds. The docstrings are the command line's help, and the table in
    docs/BRIDGE.md is made of them: `make docs`."""

    relay: str = DEFAULT_RELAY
    """Relay whose network is announced, as https://host."""
    bootstraps: Annotated[tuple[str, ...], _LISTED] = ()
    """Peers of the DHT to begin with, each as /ip4/ADDRESS/tcp/PORT/p2p/ID. Without one the bridge
    waits to be found."""
    host: str = "127.0.0.1"
    """Address to listen on: 127.0.0.1 for this machine alone, 0.0.0.0 for everybody."""
    port: int = 31330
    """TCP port for the DHT. 0 takes a free one, which the greeting names."""
    announce_address: Annotated[str, Parameter(show_default=False)] = ""
    """What others dial, as /ip4/ADDRESS/tcp/PORT, where that is not what it listens on."""
    prefix: str = "kwaainet"
    """What the names of announced models begin with. Never the name of a model of Petals: its
    clients would come and get no answers. One that begins with _ keeps off Petals' lists."""
    announce_state: State = "joining"
    """As what blocks are announced: joining, which Petals' clients pass over, or online, for those
    that only read and count nothing else."""
    public_name: str = "kwaainet bridge"
    """What people read beside the blocks."""
    max_models: int = 32
    """Models announced at most, those that the relay names first."""
    every: float = 120.0
    """How often announcements are renewed; what is new is announced at once. Each lives for two and
    a half times as long."""
    look_every: float = 15.0
    """How often the relay's map is read."""
    state: Annotated[Path | None, Parameter(show_default=False)] = None
    """Directory of the bridge's identity. Default: ~/.local/state/kwaainet/bridge."""

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        if not _RELAY.fullmatch(self.relay):
            raise ConfigError(
                f"relay {self.relay!r}: write it as https://relay.example.org", setting="relay"
            )
        for address in self.bootstraps:
            peer_of(address)
        if self.announce_address and not ADDRESS.fullmatch(self.announce_address):
            raise ConfigError(
                f"announce_address {self.announce_address!r}: write it as /ip4/ADDRESS/tcp/PORT",
                setting="announce_address",
            )
        _multiaddr(self.host, self.port)
        if not _PREFIX.fullmatch(self.prefix):
            raise ConfigError("prefix takes letters, digits, - and _ only", setting="prefix")
        if not 10 <= self.every <= 3600:
            raise ConfigError("every must be 10 to 3600 seconds", setting="every")
        if not 1 <= self.look_every <= self.every:
            raise ConfigError("look_every must be 1 to `every` seconds", setting="look_every")
        if not 1 <= self.max_models <= 256:
            raise ConfigError("max_models must be 1 to 256", setting="max_models")

    @property
    def multiaddr(self) -> str:
        """What it listens on, as libp2p writes it."""
        return _multiaddr(self.host, self.port)

    @property
    def life(self) -> float:
        """Seconds that an announcement holds: two renewals may fail."""
        return 2.5 * self.every


def _multiaddr(host: str, port: int) -> str:
    """Raises ConfigError."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        raise ConfigError(f"host {host!r} is no IP address", setting="host") from None
    if not 0 <= port < 65536:
        raise ConfigError("port must be 0 to 65535", setting="port")
    return f"/ip{ip.version}/{host}/tcp/{port}"
