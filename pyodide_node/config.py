"""What the node was told: by the tag's attributes or a command line. Judged here, nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from urllib.parse import urlsplit, urlunsplit

from pyodide_node.errors import ConfigError, ProtocolError
from pyodide_node.mesh.paths import PathPolicy
from pyodide_node.mesh.peer import key_of_did

__all__ = ["EnginePreference", "NodeConfig", "ResourceLimits", "Service"]

Service = Literal["compute", "storage", "identity", "carbon"]
EnginePreference = Literal["auto", "webgpu", "wasm", "wasm-int8", "wasm-int4"]

UPLOAD = 4.0
"""A third of what a line of 100 Mbit/s could give."""

_LARGEST = 1 << 20
"""Megabytes: a terabyte; more is a typing error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceLimits:
    """Hard caps. `cpu` is percent of one core, `memory` and `storage` are megabytes (10^6 B)."""

    cpu: int = 20
    memory: int = 1024
    storage: int = 5000

    @classmethod
    def parse(cls, text: str) -> ResourceLimits:
        """From "cpu:20,memory:1024,storage:5000"; what is not named keeps its default.

        Raises ConfigError.
        """
        bounds = {"cpu": (1, 100), "memory": (64, _LARGEST), "storage": (0, _LARGEST)}
        found: dict[str, int] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = (piece.strip() for piece in part.partition(":"))
            if name not in bounds or name in found:
                hint = f"{name[:40]!r} is not one of {', '.join(bounds)}, each once"
                raise _wrong("max-resources", text, hint)
            low, high = bounds[name]
            number = _number(value, low, high)
            if number is None:
                raise _wrong("max-resources", text, f"{name} must be a number from {low} to {high}")
            found[name] = number
        return cls(**found)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """Everything a node needs to know before it starts."""

    relays: tuple[str, ...] = ()
    """WebSocket URLs, the first that answers is used; none: the node works alone."""
    sources: tuple[str, ...] = ()
    """Base URLs of model folders, each ending in "/", the first first; see
    delivery/catalog.py."""
    gateways: tuple[str, ...] = ()
    """IPFS gateways, as https://host: asked for what no source has."""
    publisher: str = ""
    """did:key that must have signed the model; "": anybody may have, or nobody."""
    upload: float = UPLOAD
    """Megabytes a second, at most, of model files given to other nodes; 0 gives none."""
    model: str = ""
    """Name or id of the model to serve; "" is the first that the sources list."""
    services: frozenset[Service] = frozenset({"compute"})
    limits: ResourceLimits = field(default_factory=ResourceLimits)
    engine: EnginePreference = "auto"
    path: PathPolicy = "auto"
    max_blocks: int | None = None
    """At most so many blocks of a model are held here, whatever memory would allow."""
    region: str = ""
    rates: Mapping[str, float] = field(default_factory=dict)
    """Positions through one block a second, as measured before, by engine; one that is not here is
    measured at the start."""
    network: float | None = None
    """Bytes a second that this machine can send; None: not known, and taken to be enough."""

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, str], cdn: str) -> NodeConfig:
        """From the tag's `data-*` attributes (names without `data-`) and its own origin.

        Unknown attributes are left to others; a known one that does not parse raises ConfigError.
        """
        relay = attributes.get("relay", "").strip() or cdn
        services = _services(attributes.get("services", "compute"))
        return cls(
            relays=(relay_url(relay),),
            sources=(cdn.rstrip("/") + "/models/", *_urls("mirrors", attributes)),
            gateways=_urls("ipfs-gateways", attributes),
            publisher=_publisher(attributes.get("publisher", "")),
            upload=_upload(attributes.get("upload", "")),
            model=attributes.get("model", "").strip(),
            services=services,
            limits=ResourceLimits.parse(attributes.get("max-resources", "")),
            engine=_choice("engine", attributes, EnginePreference),
            path=_choice("path", attributes, PathPolicy),
            max_blocks=_max_blocks(attributes.get("max-blocks", "")),
            region=attributes.get("region", "").strip()[:32],
        )


def relay_url(address: str) -> str:
    """The WebSocket URL of a relay named by its origin or in full. Raises ConfigError."""
    schemes = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
    try:
        parts = urlsplit(address if "//" in address else f"https://{address}")
        named = parts.scheme in schemes and parts.hostname and parts.port != 0
    except ValueError:  # brackets without an address, a port that is no number
        named = False
    if not named:
        raise _wrong("relay", address, "write it as https://relay.example.org")
    path = parts.path if parts.path not in ("", "/") else "/mesh"
    return urlunsplit((schemes[parts.scheme], parts.netloc, path, "", ""))


def models_url(address: str) -> str:
    """The models folder that a relay serves. Raises ConfigError."""
    parts = urlsplit(relay_url(address))
    return urlunsplit((parts.scheme.replace("ws", "http"), parts.netloc, "/models/", "", ""))


def folder_url(setting: str, address: str) -> str:
    """An http(s) URL that ends in "/". Raises ConfigError."""
    try:
        parts = urlsplit(address)
        named = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        named = False
    if not named:
        raise _wrong(setting, address, "write it as https://mirror.example.org/models/")
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") + "/", "", ""))


def _urls(setting: str, attributes: Mapping[str, str]) -> tuple[str, ...]:
    listed = (part.strip() for part in attributes.get(setting, "").split(","))
    return tuple(folder_url(setting, part) for part in listed if part)


def _publisher(text: str) -> str:
    did = text.strip()
    if did:
        try:
            key_of_did(did)
        except ProtocolError:
            raise _wrong("publisher", did, "write a did:key of an Ed25519 key") from None
    return did


def _upload(text: str) -> float:
    if not text.strip():
        return UPLOAD
    number = _number(text.strip(), 0, _LARGEST)
    if number is None:
        raise _wrong("upload", text, "write megabytes a second, 0 for none")
    return float(number)


def _services(text: str) -> frozenset[Service]:
    named = {part.strip() for part in text.split(",") if part.strip()}
    known = get_args(Service)
    for name in named.difference(known):
        raise _wrong("services", text, f"{name[:40]!r} is not one of {', '.join(known)}")
    return frozenset(service for service in known if service in named)


def _choice(name: str, attributes: Mapping[str, str], kind: object) -> Any:
    value = attributes.get(name, "auto").strip() or "auto"
    if value not in get_args(kind):
        raise _wrong(name, value, f"write one of {', '.join(get_args(kind))}")
    return value


def _max_blocks(text: str) -> int | None:
    if not text.strip():
        return None
    number = _number(text.strip(), 1, 1024)
    if number is None:
        raise _wrong("max-blocks", text, "write a number from 1 to 1024")
    return number


def _number(text: str, low: int, high: int) -> int | None:
    """Plain digits within bounds; int() takes more than people mean, and chokes on much more."""
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        return None
    return int(text) if low <= int(text) <= high else None


def _wrong(setting: str, value: str, hint: str) -> ConfigError:
    return ConfigError(
        f'{setting}="{value[:80]}" does not parse: {hint}', setting=setting, value=value[:80]
    )
