"""What an operator may set, and every limit of the relay with its reason."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter

from pyodide_node.config import folder_url
from pyodide_node.errors import ConfigError
from pyodide_node.wire import limits
from relay_server.turn import check_ice

__all__ = ["LogFormat", "LogLevel", "RelaySettings", "default_cdn", "default_models"]

HELLO_MESSAGE: Final = 1024
"""Longest WebSocket message before a node has proved its key: a Hello takes about 200 bytes."""

CLOSE_DEADLINE: Final = 5.0
"""Seconds that a closed connection may take to answer before it is cut."""

STOP_DEADLINE: Final = 1.0
"""The same when the relay stops: nobody should wait for a node that does not answer."""

CONTROL_SLACK: Final = 256 * 1024
"""Room that a full queue still has for the relay's own words; who does not read those is cut."""

PUSHES_PER_SECOND: Final = 4_000
"""Messages about one model to all its subscribers together: the more there are, the more records
share a message."""

IDLE_COST: Final = 10
"""Messages that a WebSocket's own ping, or a piece of a message, counts for: honest ones are rare,
and cost more than what they bring."""

GONE_KEPT: Final = 4096
"""Nodes of one model that left, still to be told of. It is a hint: their records expire."""

READ_SLICE: Final = 16 * 1024
"""Bytes parsed before looking whether the connection still stands and is within its rates: a flood
of tiny frames must not keep the loop."""

PARTNERS: Final = 1024
"""Nodes that one has written to, and so may hear from. Links of a node are half as many."""

EVICT_AFTER: Final = 1.0
"""Seconds; when handshakes are many, the oldest gives way to a new one if it took longer. An honest
one takes two round trips."""

HTTP_HEAD: Final = 16 * 1024
"""Bytes of one request's line and headers."""

HTTP_WAIT: Final = 15.0
"""Seconds for a request to come, from the connection's begin or the last answer's end, and for
somebody who downloads to take something of what waits."""

HTTP_PATIENCE: Final = 5.0
"""Seconds that a request over its address's rate waits; one that had to wait longer is refused."""


LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

_LIMIT: Final = Parameter(group="Limits")
_TIME: Final = Parameter(group="Deadlines")
_API: Final = Parameter(group="API")
_LOGS: Final = Parameter(group="Logs")
_FEDERATION: Final = Parameter(group="Federation")
_COUNTS: Final = ("api_max_tokens", "api_max_answers", "api_answers_per_key", "api_max_loaded")


def _listed(alias: str, **more: Any) -> Parameter:
    """May be repeated on the command line, where one of many reads better in the singular."""
    return Parameter(alias=alias, negative=(), show_default=False, **more)


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySettings:
    """Times in seconds, sizes in bytes. The docstrings are the command line's help, and the
    table in docs/RELAY.md is made of them: `make docs`."""

    host: str = "127.0.0.1"
    """Address to listen on: 127.0.0.1 for this machine alone, 0.0.0.0 for everybody."""
    port: int = 8080
    """TCP port, and UDP port for STUN. 0 takes a free one, which the greeting names."""
    cdn: Annotated[Path | None, Parameter(show_default=False)] = None
    """Directory of the browser files. Default: those that came along, else ./dist/cdn."""
    models: Annotated[Path | None, Parameter(show_default=False)] = None
    """Directory of models to offer. Default: where `kwaainet model add` puts them."""
    state: Annotated[Path | None, Parameter(show_default=False)] = None
    """Directory of what lasts: API keys and their use, the map's history. Default: kwaainet/relay
    in the user's state directory (~/.local/state)."""
    database: Annotated[str, Parameter(show_default=False)] = field(default="", repr=False)
    """Keep keys and their use in PostgreSQL, as postgresql://USER:PASSWORD@HOST/NAME, which several
    relays may share. Default: SQLite, in the directory of the state."""
    mirrors: Annotated[tuple[str, ...], _listed("--mirror")] = ()
    """Other places that offer the same models, each as https://host/models/; nodes fall back on
    them."""
    stun: bool = True
    """Answer STUN on the UDP port of the same number: tabs behind NATs learn their address."""
    ice_servers: Annotated[tuple[str, ...], _listed("--ice-server")] = ()
    """STUN servers to tell nodes of in place of this one, each as stun:host:port."""
    turn_servers: Annotated[tuple[str, ...], _listed("--turn-server")] = ()
    """TURN servers (coturn) for nodes that find no direct way, each as turn:host:port or
    turn:host:port?transport=tcp or turns:host:port?transport=tcp. See docs/NAT.md."""
    turn_secret_file: Annotated[Path | None, Parameter(show_default=False)] = None
    """File with the secret that these TURN servers know as static-auth-secret. It is in no other
    setting, so that no log, process list or `config` shows it."""
    turn_lifetime: float = 600.0
    """What a node is given to enter them ends after so long; connected nodes get new ones."""
    tls_cert: Annotated[Path | None, Parameter(show_default=False)] = None
    """Certificate chain, PEM. Pages on https need a relay with TLS, here or in a proxy."""
    tls_key: Annotated[Path | None, Parameter(show_default=False)] = None
    """Its private key, PEM."""

    audiences: Annotated[frozenset[str], _listed("--audience")] = frozenset()
    """Names this relay is dialled by, as host or host:port. Name them when the relay is public:
    otherwise another relay that a node dials could enter here as that node and cut it off,
    though neither read nor forge anything."""
    trusted_proxies: Annotated[frozenset[str], _listed("--trust-proxy")] = frozenset()
    """Addresses of reverse proxies whose X-Forwarded-For is believed when connections are
    counted."""

    log_format: Annotated[LogFormat, _LOGS] = "text"
    """For people, or one JSON object a line. On standard error."""
    log_level: Annotated[LogLevel, _LOGS] = "info"
    """What is logged at least; no level writes addresses, prompts or keys."""
    origins: Annotated[frozenset[str], _listed("--origin")] = frozenset()
    """Sites whose pages may join here, each as https://example.org. Default: all. Native nodes
    name none and may always."""
    admin_token: Annotated[str, Parameter(show_default=False)] = field(default="", repr=False)
    """Whoever sends it (Authorization: Bearer) may see /metrics. Without one, only programs on this
    machine that do not come through a proxy may."""
    federation: Annotated[str, _FEDERATION] = ""
    """Know other relays, and listen for them here, as a multiaddr: /ip4/0.0.0.0/tcp/4001. Needs
    `pip install kwaainet[federation]`; see docs/FEDERATION.md. Default: alone."""
    public_url: Annotated[str, _FEDERATION] = ""
    """What nodes dial here, as wss://relay.example/mesh: other relays hand it on. Default: the
    address it listens on, which serves one machine."""
    bootstrap: Annotated[tuple[str, ...], _listed("--bootstrap", group="Federation")] = ()
    """Relays to meet first, each as /dns4/HOST/tcp/PORT/p2p/ID; one is enough. Relays greet with
    theirs."""
    relays_only: Annotated[tuple[str, ...], _listed("--relay-only", group="Federation")] = ()
    """Peer ids of the relays that are believed. Default: all, each for its own nodes."""
    max_relays: Annotated[int, _FEDERATION] = 24
    """Relays known at once: as many as one message to a node holds."""
    max_relay_peers: Annotated[int, _FEDERATION] = 128
    """Connections of libp2p, of relays and of others that look something up."""
    max_relay_records: Annotated[int, _FEDERATION] = 20_000
    """Announcements held of nodes on other relays."""
    max_records_per_relay: Annotated[int, _FEDERATION] = 5_000
    """Of those, from one relay."""

    api: Annotated[bool, _API] = False
    """Answer OpenAI's API under /v1, from the mesh, to those with a key (`kwaainet api-key`).
    Through this door the relay does see prompts and answers; see docs/API.md."""
    api_models: Annotated[tuple[str, ...], _listed("--api-model", group="API")] = ()
    """Models that may be asked for. Default: all that this relay offers."""
    api_max_tokens: Annotated[int, _API] = 4096
    """Tokens of one answer at most: nodes keep room for all of them while it runs."""
    api_max_answers: Annotated[int, _API] = 32
    """Answers under way at once."""
    api_answers_per_key: Annotated[int, _API] = 8
    """Of those, for one key: no key keeps the others out."""
    api_max_loaded: Annotated[int, _API] = 4
    """Models whose embedding and head are in memory at once; the one longest unused goes."""
    api_memory: Annotated[int, _API] = 4096
    """Megabytes that embedding and head of one model may take."""

    max_connections: Annotated[int, _LIMIT] = 20_000
    """Nodes connected at once. At about 20 KB each, half a gigabyte with some of them busy."""
    max_per_address: Annotated[int, _LIMIT] = 512
    """Of those, from one IPv4 address or one IPv6 /64: a school behind one address is welcome,
    one machine with all the keys is not."""
    max_handshakes: Annotated[int, _LIMIT] = 1024
    """Connections that have not proved a key yet. Beyond it, the oldest gives way to a new one."""
    max_handshakes_per_address: Annotated[int, _LIMIT] = 128
    """Of those, from one address. Who meets this limit in a crowd comes back in seconds."""
    joins_per_address: Annotated[float, _LIMIT] = 20.0
    """Connections of one address in the long run, a second; as many as it may have at once."""
    max_http: Annotated[int, _LIMIT] = 4096
    """HTTP connections at once: pages, downloads, and nodes before their upgrade."""
    max_http_per_address: Annotated[int, _LIMIT] = 512
    """Of those, from one address."""
    requests_per_address: Annotated[float, _LIMIT] = 200.0
    """HTTP requests of one address, a second; ten times as many at once. Beyond it they wait, and
    are refused after five seconds. A page takes about 20, a model one for each megabyte."""
    max_topics: Annotated[int, _LIMIT] = 32
    """Models that one node may subscribe to."""
    map_viewers: Annotated[int, _LIMIT] = 1_000
    """Pages that follow the map live; a tenth of them from one address. Others ask again every
    ten seconds."""
    max_records: Annotated[int, _LIMIT] = 20_000
    """Announcements held; each is about 300 bytes, at most 2 KB."""

    messages_per_second: Annotated[float, _LIMIT] = 2_000.0
    """From one node; beyond it, it is read more slowly. Decoding takes tens a token."""
    bytes_per_second: Annotated[float, _LIMIT] = 64 * 1024 * 1024
    """From one node; beyond it, it is read more slowly."""
    messages_per_address: Annotated[float, _LIMIT] = 10_000.0
    """From all nodes of one address together; beyond it, they are read more slowly."""
    bytes_per_address: Annotated[float, _LIMIT] = 256 * 1024 * 1024
    """From all nodes of one address together; beyond it, they are read more slowly."""
    publishes_per_second: Annotated[float, _LIMIT] = 1.0
    """Announcements of one node in the long run; beyond it and the burst, it is refused."""
    publish_burst: Annotated[float, _LIMIT] = 30.0
    """Announcements of one node at once. Honest ones come every 120 s and on change."""

    publishes_per_address: Annotated[float, _LIMIT] = 20.0
    """Announcements of all nodes of one address in the long run, a second; two for each node that
    it may have at once."""

    queue_bytes: Annotated[int, _LIMIT] = limits.OUTBOX
    """Waiting for one slow node before what is sent to it is undelivered."""
    total_queue_bytes: Annotated[int, _LIMIT] = 512 * 1024 * 1024
    """Held for all nodes together: waiting for slow ones, and messages that are still coming.
    Beyond it each may have one message waiting; beyond half as much again, who holds most is
    cut."""

    handshake_deadline: Annotated[float, _TIME] = limits.HANDSHAKE_DEADLINE
    """For a new connection to prove its key."""
    ping_after: Annotated[float, _TIME] = 30.0
    """A node that has been silent for so long is asked whether it is there."""
    idle_timeout: Annotated[float, _TIME] = 90.0
    """Three unanswered pings: the node is gone."""
    stall_timeout: Annotated[float, _TIME] = 20.0
    """A node that takes nothing of what waits for it for so long is cut."""
    sweep_every: Annotated[float, _TIME] = 1.0
    """How often deadlines are looked at."""

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("TLS needs both a certificate and its key", setting="tls")
        if self.max_relays > limits.RECORDS_PER_MESSAGE - 1:
            most = limits.RECORDS_PER_MESSAGE - 1
            raise ConfigError(f"max_relays must be {most} or less", setting="max_relays")
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more", setting=name)
        check_ice(self)
        for mirror in self.mirrors:
            folder_url("mirror", mirror)
        if self.database:
            # SQLAlchemy takes a tenth of a second to import.
            from relay_server.database import check_database

            check_database(self.database)


def default_cdn() -> Path | None:
    """The built browser files: of the installed package, else of the checkout."""
    here = Path(__file__).resolve().parent
    return _first_directory(here / "cdn", here.parent / "dist" / "cdn")


def default_models() -> Path:
    """Where models are kept: `dist/models` of a checkout, else this user's data directory (XDG Base
    Directory Specification), in which the models that came along are linked. It need not exist."""
    here = Path(__file__).resolve().parent
    if (here.parent / "pyproject.toml").is_file():
        return here.parent / "dist" / "models"
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    home = Path(base).expanduser() / "kwaainet" / "models"
    return home if _link_into(home, here / "models") else here / "models"


def _link_into(home: Path, came_along: Path) -> bool:
    """Whether `home` can be written; an upgrade moves the links."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        for folder in came_along.iterdir() if came_along.is_dir() else ():
            link = home / folder.name
            if link.is_symlink() and link.readlink() != folder:
                link.unlink()
            if not link.exists():
                link.symlink_to(folder, target_is_directory=True)
    except OSError:
        return False
    return True


def _first_directory(*paths: Path) -> Path | None:
    return next((path for path in paths if path.is_dir()), None)
