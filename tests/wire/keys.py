"""Keys that are the same in every run."""

from __future__ import annotations

import hashlib

from pyodide_node.hosts.crypto import SoftwareKeys

__all__ = ["keys_of"]


def keys_of(name: str) -> SoftwareKeys:
    """The node called `name`; its random bytes repeat from run to run."""
    count = 0

    def random(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{name} {count}".encode()).digest(size)

    return SoftwareKeys(hashlib.sha256(name.encode()).digest(), random)
