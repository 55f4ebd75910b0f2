"""Real cryptography from a seed: a node has the same identity in every run."""

from __future__ import annotations

import hashlib
import random

from pyodide_node.hosts.crypto import SoftwareKeys

__all__ = ["simulated_keys"]


def simulated_keys(seed: int, name: str) -> SoftwareKeys:
    """Keys of the host `name`; its randomness is as predictable as the identity."""
    secret = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return SoftwareKeys(secret, random.Random(secret).randbytes)  # noqa: S311
