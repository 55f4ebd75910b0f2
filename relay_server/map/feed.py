"""Those who follow the map: each hears the same bytes, encoded once. Sans-IO.

A viewer costs one write a message. Who reads too slowly, or does not answer, is let go: the page
comes back by itself and begins with the whole map.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, Protocol

from websockets.frames import Frame, Opcode

from relay_server.addresses import network_of

__all__ = ["BEAT", "Feed", "Viewer", "text_frame"]

BEAT: Final = 15.0
"""Seconds between two signs of life: proxies cut a connection that is idle for a minute."""

_SILENCE: Final = 3 * BEAT
"""A viewer that has not answered a ping for so long is gone."""

_QUEUE: Final = 1 << 20
"""Bytes that may wait for one viewer: the largest map is half of that."""

_SHARE: Final = 10
"""The part of all viewers, as one in so many, that may come from one address."""


class Viewer(Protocol):
    """A viewer's WebSocket."""

    @property
    def buffered(self) -> int: ...

    def send(self, frame: bytes) -> None: ...

    def ping(self) -> None: ...

    def abort(self) -> None: ...


class Feed:
    """At most `limit` viewers."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._viewers: dict[Viewer, tuple[str, float]] = {}
        self._networks: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._viewers)

    def refuses(self, address: str) -> str | None:
        """Why a viewer from `address` is not taken; None when it is."""
        if len(self._viewers) >= self._limit:
            return "TooManyViewers"
        if self._networks[network_of(address)] >= -(-self._limit // _SHARE):
            return "TooManyFromOneAddress"
        return None

    def enter(self, viewer: Viewer, address: str, now: float) -> None:
        network = network_of(address)
        self._networks[network] += 1
        self._viewers[viewer] = network, now

    def leave(self, viewer: Viewer) -> None:
        """A second call is harmless."""
        network, _ = self._viewers.pop(viewer, ("", 0.0))
        if self._networks[network] > 1:
            self._networks[network] -= 1
        else:
            del self._networks[network]

    def heard(self, viewer: Viewer, now: float) -> None:
        """A viewer has answered a ping."""
        if viewer in self._viewers:
            self._viewers[viewer] = self._viewers[viewer][0], now

    def tell(self, message: bytes) -> None:
        """Send JSON to all."""
        frame = text_frame(message)
        for viewer in list(self._viewers):
            if viewer.buffered + len(frame) > _QUEUE:
                self._cut(viewer)
            else:
                viewer.send(frame)

    def beat(self, now: float) -> None:
        """Ask all for a sign of life, and let those go who give none."""
        for viewer, (_, heard) in list(self._viewers.items()):
            if now - heard > _SILENCE:
                self._cut(viewer)
            else:
                viewer.ping()

    def _cut(self, viewer: Viewer) -> None:
        self.leave(viewer)
        viewer.abort()


def text_frame(message: bytes) -> bytes:
    """A server's WebSocket message (RFC 6455, section 5.2), as every viewer gets it."""
    return Frame(Opcode.TEXT, message).serialize(mask=False)
