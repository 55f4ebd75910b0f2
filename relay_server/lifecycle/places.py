"""Where a node's process keeps what others need to find it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyodide_node.errors import ConfigError

__all__ = ["Places"]

_LONGEST_SOCKET: Final = 100
"""Bytes of a Unix socket's path: macOS takes 104 with the closing zero, Linux 108."""


@dataclass(frozen=True, slots=True)
class Places:
    """Files in one node's state directory."""

    state: Path

    @property
    def lock(self) -> Path:
        """Locked (flock) by the node while it runs; holds its process id."""
        return self.state / "node.lock"

    @property
    def log(self) -> Path:
        return self.state / "node.log"

    @property
    def speeds(self) -> Path:
        """Measurements of earlier starts."""
        return self.state / "speeds.json"

    @property
    def shelf(self) -> Path:
        """Links to the models on this machine."""
        return self.state / "shelf"

    @property
    def socket(self) -> Path:
        """Raises ConfigError when the directory's path is too long for one."""
        path = self.state / "node.sock"
        if len(str(path.absolute()).encode()) > _LONGEST_SOCKET:
            raise ConfigError(
                f"{self.state} is too long a path for a control socket; choose a shorter --state",
                setting="state",
            )
        return path
