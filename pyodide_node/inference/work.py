"""What a node does for one model."""

from __future__ import annotations

from dataclasses import dataclass

from pyodide_node.inference.asker import Asker
from pyodide_node.inference.holding import Holding
from pyodide_node.inference.presence import Presence
from pyodide_node.inference.serving import Serving

__all__ = ["Work"]


@dataclass(frozen=True, slots=True)
class Work:
    holding: Holding
    serving: Serving
    presence: Presence
    asker: Asker
