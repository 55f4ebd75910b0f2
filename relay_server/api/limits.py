"""Limits of the API with their reasons; what an operator may set is in `RelaySettings`."""

from __future__ import annotations

from typing import Final

__all__ = ["BODY_BYTES", "BODY_DEADLINE", "KEEP_ALIVE", "LABEL", "STALL"]

LABEL: Final = (
    "The relay that answers here reads prompts and answers; the mesh's nodes get activations only."
)
"""Said in every answer's header and beside every model. What it says is also in `--help`."""

BODY_BYTES: Final = 1 << 20
"""Of one request: about twice the text that 128k tokens hold."""

BODY_DEADLINE: Final = 20.0
"""Seconds for a request's body to come, once its key is known."""

KEEP_ALIVE: Final = 15.0
"""Seconds of silence after which a stream says a comment, so that proxies keep it open."""

STALL: Final = 30.0
"""Seconds that a client may leave a stream unread before it is taken for gone."""
