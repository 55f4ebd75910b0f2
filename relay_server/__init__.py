"""Bootstrap and relay: brings nodes together and passes on what it cannot read."""

from __future__ import annotations

from relay_server.relay import Relay
from relay_server.settings import RelaySettings

__all__ = ["Relay", "RelaySettings"]
