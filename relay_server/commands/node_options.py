"""What the commands that run a native node have in common."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from pyodide_node.config import (
    UPLOAD,
    NodeConfig,
    ResourceLimits,
    folder_url,
    models_url,
    relay_url,
)
from pyodide_node.mesh.paths import PathPolicy

__all__ = ["NodeOptions", "relay_state", "state_directory"]


def _listed(alias: str) -> Parameter:
    return Parameter(alias=alias, negative=(), show_default=False)


DEFAULT_RELAY = "http://127.0.0.1:8080"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class NodeOptions:
    """Options of a native node."""

    relay: str = DEFAULT_RELAY
    """Relay to join, as https://host."""

    max_resources: str = "cpu:100,memory:4096,storage:20000"
    """Hard caps: percent of one core, megabytes of memory, megabytes of storage."""

    path: PathPolicy = "auto"
    """How to reach other nodes: auto, webrtc or relay."""

    max_blocks: int | None = None
    """Hold at most so many blocks of the model."""

    threads: int = 1
    """Processor threads within one operation."""

    mirrors: Annotated[tuple[str, ...], _listed("--mirror")] = ()
    """Other places to fetch models from, each as https://host/models/, where the relay fails."""

    ipfs_gateways: Annotated[tuple[str, ...], _listed("--ipfs-gateway")] = ()
    """IPFS gateways to fetch from where all others fail, each as https://host."""

    publisher: str = ""
    """did:key that must have signed the model."""

    upload: float = UPLOAD
    """Megabytes a second, at most, of model files given to other nodes."""

    models: Annotated[Path | None, Parameter(show_default=False)] = None
    """Directory of models that are here already. Default: the one `kwaainet relay` offers."""

    network: Annotated[float | None, Parameter(show_default=False)] = None
    """Megabits a second that this machine can send; the node announces no more than that. Default:
    as measured through the relay, once a day."""

    region: str = ""
    """Where it is, in a word of its own choice; routes prefer none."""

    state: Annotated[Path | None, Parameter(show_default=False)] = None
    """Directory of this node's identity and cache. Default: ~/.local/state/kwaainet."""

    def config(self, model: str, services: frozenset[Literal["compute"]]) -> NodeConfig:
        """Raises ConfigError."""
        return NodeConfig(
            relays=(relay_url(self.relay),),
            sources=(
                models_url(self.relay),
                *(folder_url("mirror", mirror) for mirror in self.mirrors),
            ),
            gateways=tuple(folder_url("ipfs-gateway", one) for one in self.ipfs_gateways),
            publisher=self.publisher,
            upload=self.upload,
            model=model,
            services=frozenset(services),
            limits=ResourceLimits.parse(self.max_resources),
            path=self.path,
            max_blocks=self.max_blocks,
            region=self.region[:32],
            network=None if self.network is None else self.network * 1e6 / 8,
        )


def state_directory(chosen: Path | None) -> Path:
    """Where a native node keeps its identity (XDG Base Directory Specification)."""
    if chosen is not None:
        return chosen
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "kwaainet"


def relay_state(chosen: Path | None) -> Path:
    """Where a relay keeps what lasts, beside the nodes of this machine."""
    return chosen if chosen is not None else state_directory(None) / "relay"
