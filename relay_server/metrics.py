"""What Prometheus reads: the relay's counters under stable names, and its process's figures.

Names and units follow prometheus.io/docs/practices/naming. Labels take values of this package's
own and names of models that the operator offers, never what a stranger wrote: their number stays
small.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from pyodide_node import __version__
from relay_server.hub import Hub
from relay_server.map.document import ModelView

__all__ = ["PREFIX", "Metrics"]

PREFIX: Final = "kwaainet_relay_"

# They would double the series: process_start_time_seconds says it once.
disable_created_metrics()  # type: ignore[no-untyped-call]

Views = Callable[[], Sequence[ModelView]]
_Values = float | Mapping[str, float]


class Metrics(Collector):
    """Of one relay. `models` tells what the network serves of them."""

    def __init__(self, hub: Hub, models: Views = tuple) -> None:
        self._hub = hub
        self._models = models
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """The body and its media type, in the form that the Accept header asks for."""
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type

    def collect(self) -> Iterable[Metric]:
        """For the registry."""
        hub, done = self._hub, self._hub.counters
        build = GaugeMetricFamily(
            f"{PREFIX}build_info", "What runs; always 1.", labels=("version", "python")
        )
        build.add_metric((__version__, platform.python_version()), 1)
        yield build
        yield _gauge("connections", "Nodes connected.", len(hub))
        yield _gauge("handshakes", "Connections that have not proved a key yet.", hub.entering)
        yield _gauge("connections_limit", "Setting max_connections.", hub.settings.max_connections)
        yield _gauge("records", "Announcements held.", len(hub.directory))
        yield _gauge("queued_bytes", "Waiting for slow nodes.", _queued(hub))
        yield _counter("entered", "Nodes that entered.", done.entered)
        yield _counter("published", "Announcements taken.", done.published)
        yield _counter("forwarded_frames", "Frames passed on.", done.forwarded_frames)
        yield _counter("forwarded_bytes", "Bytes of them.", done.forwarded_bytes)
        yield _counter(
            "undelivered_frames",
            "Frames not passed on: their node was absent, or its queue full.",
            done.undelivered,
            "reason",
        )
        yield _counter("refused", "Connections refused or cut.", done.refused, "reason")
        yield _counter("throttled", "Times a sender was read more slowly.", done.throttled)
        yield _counter("stun_answers", "STUN answers.", done.stun_answers)
        yield _gauge("relays", "Other relays that are known.", max(0, len(hub.neighbours) - 1))
        yield _gauge("relay_peers", "Connections of libp2p.", done.relay_peers)
        yield _counter("bulletins", "What relays told each other.", done.bulletins, "kind")
        yield _counter("values_refused", "Offered to the DHT, and refused.", done.values_refused)
        yield _counter("sent_file_bytes", "Bytes of pages, files and answers.", done.file_bytes)
        yield _counter("state_errors", "Failures to read or write the state.", done.state_errors)
        yield from done.loop_delay.collect()
        yield from done.api_requests.collect()
        yield from done.api_seconds.collect()
        yield _counter("api_answers", "Answers begun and ended.", done.api_answers)
        yield _counter("api_tokens", "Tokens of those answers.", done.api_tokens, "kind")
        yield from self._network()

    def _network(self) -> Iterable[Metric]:
        tally = self._hub.tally
        yield _gauge("serving_nodes", "Nodes that serve blocks, by kind.", tally.hosts, "host")
        yield _gauge("fetching_nodes", "Nodes that serve none yet.", tally.fetching)
        offered = [view for view in self._models() if view.name]
        nodes = {view.name: float(view.nodes) for view in offered}
        least = {view.name: float(min(view.blocks, default=0)) for view in offered}
        yield _gauge("model_nodes", "Nodes of each model offered here.", nodes, "model")
        yield _gauge(
            "model_thinnest_block_nodes",
            "Nodes that serve the block that fewest serve; at 0 the model cannot answer.",
            least,
            "model",
        )


def _queued(hub: Hub) -> int:
    return sum(node.socket.buffered for node in hub)


def _gauge(name: str, text: str, values: _Values, label: str = "") -> Metric:
    return _filled(GaugeMetricFamily(PREFIX + name, text, labels=_labels(label)), values)


def _counter(name: str, text: str, values: _Values, label: str = "") -> Metric:
    return _filled(CounterMetricFamily(PREFIX + name, text, labels=_labels(label)), values)


def _labels(label: str) -> tuple[str, ...]:
    return (label,) if label else ()


def _filled(
    family: GaugeMetricFamily | CounterMetricFamily, values: _Values
) -> GaugeMetricFamily | CounterMetricFamily:
    if isinstance(values, Mapping):
        for name, value in sorted(values.items()):
            family.add_metric((name,), value)
    else:
        family.add_metric((), values)
    return family
