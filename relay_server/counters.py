"""What the relay has done since it started: numbers only, of nobody in particular."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import prometheus_client

__all__ = ["Counters"]


_SECONDS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""A short answer takes half a second, the longest on a slow mesh minutes."""


def _api_requests() -> prometheus_client.Counter:
    return prometheus_client.Counter(
        "kwaainet_relay_api_requests",
        "Requests to the API, refused ones too; 499: its client left.",
        ("endpoint", "status"),
        registry=None,
    )


def _api_seconds() -> prometheus_client.Histogram:
    return prometheus_client.Histogram(
        "kwaainet_relay_api_request_duration_seconds",
        "From a request to the API to the last byte of its answer.",
        ("endpoint",),
        buckets=_SECONDS,
        registry=None,
    )


def _loop_delay() -> prometheus_client.Histogram:
    return prometheus_client.Histogram(
        "kwaainet_relay_loop_delay_seconds",
        "How late the event loop comes to what it does each second: its one core is busy.",
        buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
        registry=None,
    )


@dataclass(slots=True)
class Counters:
    entered: int = 0
    """Nodes that proved their key."""
    forwarded_frames: int = 0
    forwarded_bytes: int = 0
    undelivered: Counter[str] = field(default_factory=Counter)
    """By code: absent, full, unwanted."""
    refused: Counter[str] = field(default_factory=Counter)
    """By code; also connections turned away before they were one."""
    published: int = 0
    throttled: int = 0
    """Times a connection was read more slowly."""
    stun_answers: int = 0
    relay_peers: int = 0
    """Connections of libp2p just now."""
    bulletins: Counter[str] = field(default_factory=Counter)
    """What relays told each other: sent, taken, refused."""
    values_refused: int = 0
    """Values that were offered to the DHT."""
    api_answers: int = 0
    """Admitted through the API and ended, whether whole or not."""
    api_tokens: Counter[str] = field(default_factory=Counter)
    """Of those: prompt, completion."""
    api_requests: prometheus_client.Counter = field(default_factory=_api_requests)
    """By endpoint and status."""
    api_seconds: prometheus_client.Histogram = field(default_factory=_api_seconds)
    """By endpoint."""
    state_errors: int = 0
    """Times that the state could not be read or written."""
    loop_delay: prometheus_client.Histogram = field(default_factory=_loop_delay)
    file_bytes: int = 0
    """Of HTTP bodies, as sent."""
    shard_bytes: Counter[str] = field(default_factory=Counter)
    """Of those, bytes of each model file, by its hash."""
