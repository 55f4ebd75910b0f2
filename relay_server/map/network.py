"""The map of one relay: what is published, when, and to whom. Sans-IO.

Changes are published at once when it has been quiet, and together, once a second, when not.
`/map.json` and the feed tell the same: the last publication.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import msgspec

from pyodide_node.hosts.base import Clock
from relay_server.hub import Hub
from relay_server.map.document import Change, MapDocument, ModelView, RelayView, Snapshot, Totals
from relay_server.map.feed import Feed, Viewer, text_frame
from relay_server.map.history import History, Sample
from relay_server.map.views import Views
from relay_server.models import Model
from relay_server.topics import Later

__all__ = ["PERIOD", "RELAYS", "Body", "NetworkMap"]

PERIOD: Final = 1.0
"""Seconds between two publications at the least."""

RELAYS: Final = 64
"""Relays listed."""

_HOST: Final = re.compile(r"[a-z0-9.:\[\]-]{1,120}\Z")
"""What a relay elsewhere is called: a host and no words of its own."""

_ALIVE: Final = b'{"type":"alive"}'


@dataclass(frozen=True, slots=True)
class Body:
    """An answer as often as it is asked for."""

    data: bytes
    zipped: bytes
    etag: str

    @classmethod
    def of(cls, data: bytes) -> Body:
        digest = hashlib.sha256(data).hexdigest()
        return cls(data, gzip.compress(data, 6, mtime=0), f'"{digest[:24]}"')


class NetworkMap:
    """`later(seconds, call)` is the loop's."""

    def __init__(self, hub: Hub, clock: Clock, later: Later, viewers: int) -> None:
        self.feed = Feed(viewers)
        self.history = History(hub.counters)
        self._hub = hub
        self._clock = clock
        self._later = later
        self._views = Views(hub.tally)
        self._waiting: asyncio.TimerHandle | None = None
        self._due = False
        self._last = float("-inf")
        self._time = clock.wall()
        self._models: list[ModelView] = []
        self._relays: list[RelayView] = []
        self._totals: Totals
        self._body: Body | None = None
        self._past: Body | None = None
        self._look()
        hub.tally.changed = self.changed

    def close(self) -> None:
        self._hub.tally.changed = lambda: None
        if self._waiting is not None:
            self._waiting.cancel()

    @property
    def models(self) -> list[ModelView]:
        """As last published."""
        return self._models

    def offer(self, models: Sequence[Model]) -> None:
        """These are the models that this relay offers now."""
        offered: Mapping[str, Model] = {model.id: model for model in models}
        if offered != self._views.offered:
            self._views.offered = offered
            self.changed()

    def changed(self) -> None:
        """Something is different: publish soon."""
        if not self._due:
            self._due = True
            wait = max(0.0, self._last + PERIOD - self._clock.monotonic())
            self._waiting = self._later(wait, self.publish)

    def publish(self) -> None:
        """Tell all viewers what is different since the last time."""
        self._due = False
        self._last = self._clock.monotonic()
        models, totals, relays = self._models, self._totals, self._relays
        self._look()
        if (models, totals, relays) == (self._models, self._totals, self._relays):
            return
        self._time = self._clock.wall()
        self._body = None
        if not len(self.feed):
            return
        before = {model.id: model for model in models}
        order = [model.id for model in self._models]
        change = Change(
            time=self._time,
            totals=self._totals,
            models=[model for model in self._models if before.get(model.id) != model],
            order=order if order != list(before) else None,
            relays=self._relays if self._relays != relays else None,
        )
        self.feed.tell(msgspec.json.encode(change))

    def beat(self) -> None:
        """Once every BEAT: what changes without anybody saying so, and a sign of life."""
        self.publish()
        self.feed.beat(self._clock.monotonic())
        self.feed.tell(_ALIVE)

    def recall(self, samples: Sequence[Sample]) -> None:
        """The history that a former run kept."""
        self.history.recall(samples)
        self._past = None

    def remember(self) -> Sample:
        """Once a minute: one more sample of the history."""
        sample = self.history.take(self._clock.wall(), self._totals, self._models)
        self._past = None
        if len(self.feed):
            told = {"type": "sample"} | {
                name: getattr(sample, name) for name in sample.__struct_fields__
            }
            self.feed.tell(msgspec.json.encode(told))
        return sample

    def enter(self, viewer: Viewer, address: str) -> None:
        """Show a new viewer the whole map, and every change from now on."""
        self._refresh()
        snapshot = Snapshot(
            time=self._time, totals=self._totals, models=self._models, relays=self._relays
        )
        viewer.send(text_frame(msgspec.json.encode(snapshot)))
        self.feed.enter(viewer, address, self._clock.monotonic())

    def heard(self, viewer: Viewer) -> None:
        self.feed.heard(viewer, self._clock.monotonic())

    def document(self) -> Body:
        """`/map.json`."""
        self._refresh()
        if self._body is None:
            document = MapDocument(
                time=self._time,
                totals=self._totals,
                models=self._models,
                spans={model.id: self._views.spans(model.id) for model in self._models},
                relays=self._relays,
            )
            self._body = Body.of(msgspec.json.encode(document))
        return self._body

    def past(self) -> Body:
        """`/map/history.json`."""
        if self._past is None:
            self._past = Body.of(msgspec.json.encode(self.history.columns()))
        return self._past

    def _refresh(self) -> None:
        """Connections come and go without anybody saying so: nobody sees a number from long ago."""
        if self._clock.monotonic() >= self._last + PERIOD:
            self.publish()

    def _look(self) -> None:
        self._models = self._views.models()
        self._totals = self._views.totals(self._models, len(self._hub))
        self._relays = self._known_relays()[:RELAYS]

    def _known_relays(self) -> list[RelayView]:
        hub = self._hub
        names = sorted(hub.settings.audiences)
        own = RelayView(name=names[0] if names else "", own=True, nodes=len(hub))
        others = [
            RelayView(name=urlsplit(relay.url).netloc, own=False, nodes=relay.nodes)
            for relay in hub.neighbours
            if not relay.own and _HOST.match(urlsplit(relay.url).netloc)
        ]
        return [own, *sorted(others, key=lambda relay: (-relay.nodes, relay.name))]
