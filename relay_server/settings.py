"""What an operator may set, and every limit of the relay with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyodide_node.wire import limits

__all__ = ["RelaySettings", "default_cdn", "default_models"]

HELLO_MESSAGE: Final = 1024
"""Longest WebSocket message before a node has proved its key: a Hello takes about 200 bytes."""

CLOSE_DEADLINE: Final = 5.0
"""Seconds that a closed connection may take to answer before it is cut."""

STOP_DEADLINE: Final = 1.0
"""The same when the relay stops: nobody should wait for a node that does not answer."""

CONTROL_SLACK: Final = 256 * 1024
"""Room that a full queue still has for the relay's own words; who does not read those is cut."""

PUSHES_PER_SECOND: Final = 4_000
"""Record pushes of one model in all: the more subscribers, the more records share a message."""

READ_SLICE: Final = 64 * 1024
"""Bytes parsed before looking whether the connection still stands: a flood of tiny frames must
not keep the loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySettings:
    """Times in seconds, sizes in bytes."""

    host: str = "127.0.0.1"
    port: int = 8080
    """0 takes a free one; `Relay.port` tells which."""
    cdn: Path | None = None
    """Directory of the built browser files."""
    models: Path | None = None
    """Directory with one folder a model: manifest.json and blobs/<sha256>."""
    stun: bool = True
    """Answer STUN on the UDP port of the same number."""
    ice_servers: tuple[str, ...] = ()
    """Told to nodes in place of this relay's own STUN address, as `stun:host:port`."""
    tls_cert: Path | None = None
    tls_key: Path | None = None

    audiences: frozenset[str] = frozenset()
    """Names (host or host:port, lower case) that this relay is known by. Without any the Host
    header is believed, and then another relay that a node dials can enter here as that node: it
    could cut the node off, but neither read nor forge anything. Public relays name theirs."""
    trusted_proxies: frozenset[str] = frozenset()
    """Addresses whose X-Forwarded-For is believed when connections are counted."""

    max_connections: int = 20_000
    """At about 20 KB each, half a gigabyte with some of them busy."""
    max_per_address: int = 512
    """A school behind one address is welcome; one machine with all the keys is not."""
    max_handshakes: int = 256
    """Connections that have not proved a key yet; each may stay for the handshake's deadline."""
    max_topics: int = 32
    """Models that one node may subscribe to."""
    max_records: int = 20_000
    """Announcements held; each is about 300 bytes, at most 2 KB."""

    messages_per_second: float = 5_000.0
    bytes_per_second: float = 64 * 1024 * 1024
    """From one connection; beyond it the relay reads that connection more slowly. Decoding takes
    tens of 4 to 64 KB messages a token, so an honest node stays far below."""
    publishes_per_second: float = 1.0
    publish_burst: float = 30.0
    """Announcements come every 120 s and on change; beyond this the node is refused."""

    queue_bytes: int = limits.OUTBOX
    """Waiting for one node before what others forward to it is undelivered."""
    total_queue_bytes: int = 512 * 1024 * 1024
    """Waiting for all nodes together; beyond it each may keep only `limits.MESSAGE`."""

    handshake_deadline: float = limits.HANDSHAKE_DEADLINE
    ping_after: float = 30.0
    """A node that has been silent for so long is asked whether it is there."""
    idle_timeout: float = 90.0
    """Three unanswered pings: the node is gone."""
    stall_timeout: float = 20.0
    """A node that takes nothing of what waits for it for so long is cut."""
    sweep_every: float = 1.0
    """How often deadlines are looked at."""

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("TLS needs both a certificate and its key")


def default_cdn() -> Path | None:
    """The built browser files: of the installed package, else of the checkout."""
    here = Path(__file__).resolve().parent
    return _first_directory(here / "cdn", here.parent / "dist" / "cdn")


def default_models() -> Path | None:
    """The models that come along: of the installed package, else of the checkout."""
    here = Path(__file__).resolve().parent
    return _first_directory(here / "models", here.parent / "dist" / "models")


def _first_directory(*paths: Path) -> Path | None:
    return next((path for path in paths if path.is_dir()), None)
