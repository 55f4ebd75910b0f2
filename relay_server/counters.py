"""What the relay has done since it started: numbers only, of nobody in particular."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

__all__ = ["Counters"]


@dataclass(slots=True)
class Counters:
    entered: int = 0
    """Nodes that proved their key."""
    forwarded_frames: int = 0
    forwarded_bytes: int = 0
    undelivered: Counter[str] = field(default_factory=Counter)
    """By code: absent, full."""
    refused: Counter[str] = field(default_factory=Counter)
    """By code; also connections turned away before they were one."""
    published: int = 0
    throttled: int = 0
    """Times a connection was read more slowly."""
    stun_answers: int = 0
    api_answers: int = 0
    """Admitted through the API and ended, whether whole or not."""
    api_tokens: Counter[str] = field(default_factory=Counter)
    """Of those: prompt, completion."""
    state_errors: int = 0
    """Times that the state could not be read or written."""
    file_bytes: int = 0
    """Of HTTP bodies, as sent."""
    shard_bytes: Counter[str] = field(default_factory=Counter)
    """Of those, bytes of each model file, by its hash."""

    def state_failed(self) -> None:
        self.state_errors += 1
