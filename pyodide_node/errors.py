"""Every error the node raises, as one tree.

KwaaiNetError
├── LocalError                 our side: a bug, a setting or a limit of this machine
│   ├── ConfigError            an attribute or option does not parse
│   ├── BudgetExceeded         the visitor's caps leave no room for this
│   ├── EngineError            the inference engine failed
│   ├── StoreError             storage denied, full or broken
│   └── Cancelled              the caller asked to stop
└── RemoteError                their side: a peer, relay or file is wrong
    ├── ProtocolError          bytes that are not the protocol
    ├── RecordError            a signed record that is forged, expired or stale
    ├── SealError              a sealed session that does not open
    ├── IntegrityError         content that does not have its hash
    ├── ManifestError          a manifest that cannot be trusted
    ├── UnknownModel           nobody here has heard of it
    ├── NotGranted             a private model whose owner has not let this node in
    ├── Unreachable            no path to a peer or relay
    ├── NoRoute                blocks that nobody serves
    └── StageFailed            a stage refused, stalled or lied

Errors carry data as attributes; the message says what happened and what to do next.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "BudgetExceeded",
    "Cancelled",
    "ConfigError",
    "EngineError",
    "IntegrityError",
    "KwaaiNetError",
    "LocalError",
    "ManifestError",
    "NoRoute",
    "NotGranted",
    "ProtocolError",
    "RecordError",
    "RemoteError",
    "SealError",
    "StageFailed",
    "StoreError",
    "UnknownModel",
    "Unreachable",
]


class KwaaiNetError(Exception):
    """Root of the tree. `data` holds the facts; `code` is the name sent over the wire."""

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(message)
        self.data = data

    @property
    def code(self) -> str:
        return type(self).__name__


class LocalError(KwaaiNetError):
    """Our side is at fault, or at its limit."""


class ConfigError(LocalError):
    """A setting does not parse; `data["setting"]` names it."""


class BudgetExceeded(LocalError):
    """A cap would be broken; `data` has `resource`, `asked`, `free`."""


class EngineError(LocalError):
    """The inference engine refused or failed."""


class StoreError(LocalError):
    """Storage is denied, full or broken; the node goes on without it."""


class Cancelled(LocalError):
    """The caller stopped this work."""


class RemoteError(KwaaiNetError):
    """Something that came from outside is wrong."""


class ProtocolError(RemoteError):
    """Bytes that are not the protocol; the connection they came by is closed."""


class RecordError(RemoteError):
    """A signed record is malformed, forged, expired or older than one already held."""


class SealError(RemoteError):
    """A sealed session could not be opened or a packet of it is not authentic."""


class IntegrityError(RemoteError):
    """Content does not have the hash that pins it."""


class ManifestError(RemoteError):
    """A model manifest is malformed or does not add up."""


class UnknownModel(RemoteError):
    """The model is not known here; `data["known"]` lists those that are."""


class NotGranted(RemoteError):
    """A private model's keeper gives this node no key; the message says what to ask its owner."""


class Unreachable(RemoteError):
    """No path to a peer or relay."""


class NoRoute(RemoteError):
    """Some blocks are served by nobody; `data["missing"]` is the first of them."""


class StageFailed(RemoteError):
    """A stage refused, stalled or lied; `data` has `peer` and `reason`."""
