"""Metrics as Prometheus reads them, and the dashboard and alerts that are made of them."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from pyodide_node import __version__
from pyodide_node.wire.messages import Forward
from relay_server import Relay, RelaySettings
from relay_server.metrics import PREFIX, Metrics
from tests.relay_server.client import PATIENCE, announcement
from tests.relay_server.fakes import World
from tests.relay_server.http import get

DEPLOY = Path(__file__).resolve().parents[2] / "relay_server" / "deploy"
UNITS = ("seconds", "bytes")
"""Base units of prometheus.io/docs/practices/naming; what is only counted has none."""
OTHERS = ("up",)
"""Prometheus' own."""


def families(text: bytes | str) -> dict[str, Metric]:
    decoded = text.decode() if isinstance(text, bytes) else text
    return {family.name: family for family in text_string_to_metric_families(decoded)}


def values(world: World) -> dict[str, float]:
    found = {}
    for family in families(Metrics(world.hub).text()[0]).values():
        for sample in family.samples:
            label = ",".join(sample.labels.values())
            name = sample.name.removeprefix(PREFIX) + (f" {label}" if label else "")
            if family.name.startswith(PREFIX):
                found[name] = sample.value
    return found


async def test_they_count_what_was_done() -> None:
    world = World()
    node = await world.node("node")
    await node.publish(announcement())
    node.send(Forward(node.key), b"12345")
    node.send(Forward(bytes(32)), b"12345")
    stranger = await world.node("stranger")
    world.hub.received(stranger.node, b"junk")
    found = values(world)
    (build,) = [name for name in found if name.startswith("build_info ")]
    assert __version__ in build
    assert {name: value for name, value in found.items() if value and name != build} == {
        "connections": 1,
        "connections_limit": RelaySettings().max_connections,
        "records": 1,
        "entered_total": 2,
        "published_total": 1,
        "forwarded_frames_total": 1,
        "forwarded_bytes_total": 5,
        "undelivered_frames_total absent": 1,
        "refused_total ProtocolError": 1,
        "serving_nodes native": 1,
    }
    assert found["api_answers_total"] == found["state_errors_total"] == 0


async def test_what_waits_for_slow_nodes_is_told() -> None:
    world = World()
    slow = await world.node("slow")
    slow.socket.reads = False
    slow.send(Forward(slow.key), bytes(1000))
    assert values(world)["queued_bytes"] > 1000


async def test_how_late_the_loop_is_is_told() -> None:
    async with Relay(RelaySettings(port=0, stun=False, sweep_every=0.01)) as relay:

        async def looks() -> float:
            found = families((await get(relay.url, "/metrics")).body)
            samples = found[f"{PREFIX}loop_delay_seconds"].samples
            return next(each.value for each in samples if each.name.endswith("_count"))

        async with asyncio.timeout(PATIENCE):
            while await looks() < 3:  # noqa: ASYNC110 - what Prometheus would see
                await asyncio.sleep(0.01)


async def test_names_have_their_units_and_no_other_words() -> None:
    world = World()
    for family in families(Metrics(world.hub).text()[0]).values():
        assert re.fullmatch(r"(kwaainet_relay|process)_[a-z_]+", family.name)
        assert family.documentation.endswith((".", "1."))
        for sample in family.samples:
            if family.type == "counter":
                assert sample.name.endswith("_total")
            else:
                assert not sample.name.endswith("_total")
            assert not sample.name.endswith("_created")
        assert not re.search(
            r"_(ms|milliseconds|kb|mb|kilobytes|minutes|percent)(_|$)", family.name
        )
        if family.type == "histogram":
            assert family.name.endswith(UNITS)


async def test_they_are_served_in_both_forms(relay: Relay) -> None:
    plain = await get(relay.url, "/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert families(plain.body)[f"{PREFIX}connections"].samples[0].value == 0
    assert families(plain.body)["process_resident_memory_bytes"].samples[0].value > 1_000_000
    accept = "application/openmetrics-text; version=1.0.0"
    newer = await get(relay.url, "/metrics", Accept=accept)
    assert newer.headers["content-type"].startswith(accept)
    assert {family.name for family in openmetrics(newer.body.decode())} == set(families(plain.body))


# --- what is made of them -------------------------------------------------------------------


def known(text: bytes) -> set[str]:
    """Every series that a relay has, whether it has a value yet or not."""
    names = set()
    for family in families(text).values():
        if family.type == "counter":
            names.add(f"{family.name.removesuffix('_total')}_total")
        elif family.type == "histogram":
            names |= {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
        else:
            names.add(family.name)
    return names


def selected(expression: str) -> set[str]:
    """The series that a query reads; a query that Prometheus would not take raises ValueError."""
    tree = promql_parser.parse(expression.replace("$instance", "x"))

    def walk(node: Any) -> Iterator[str]:
        if isinstance(node, promql_parser.VectorSelector):
            yield node.name
        for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
            if (child := getattr(node, name, None)) is not None:
                yield from walk(child)
        for child in getattr(node, "args", ()):
            yield from walk(child)

    return set(walk(tree))


def test_queries_are_read_whole() -> None:
    query = 'histogram_quantile(0.5, sum by (le) (rate(a_bucket{b="c"}[5m]))) / (d > 0.9) or -e'
    assert selected(query) == {"a_bucket", "d", "e"}
    with pytest.raises(ValueError, match="unclosed left parenthesis"):
        selected("rate(")


async def test_the_dashboard_asks_for_nothing_that_is_not_there(relay: Relay) -> None:
    there = known((await get(relay.url, "/metrics")).body)
    board = json.loads((DEPLOY / "grafana.json").read_text())
    asked = set()
    for panel in board["panels"]:
        assert panel["type"] in ("row", "timeseries", "stat")
        for target in panel.get("targets", ()):
            assert 'instance=~"$instance"' in target["expr"]
            asked |= selected(target["expr"])
    assert asked <= there
    shown = {name.removesuffix("_bucket") for name in asked}
    untold = {
        name for name in there if name.startswith(PREFIX) and not name.endswith(("_sum", "_count"))
    }
    left = {f"{PREFIX}{name}" for name in ("handshakes", "published_total", "stun_answers_total")}
    left |= {f"{PREFIX}api_answers_total"}
    assert {name.removesuffix("_bucket") for name in untold} - shown <= left
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    (variable,) = [v for v in board["templating"]["list"] if v["name"] == "instance"]
    assert variable["definition"] == f"label_values({PREFIX}build_info, instance)"


async def test_alerts_are_about_what_is_there(relay: Relay) -> None:
    there = known((await get(relay.url, "/metrics")).body) | set(OTHERS)
    (group,) = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert selected(rule["expr"]) <= there
        assert rule["annotations"]["summary"]
    names = [rule["alert"] for rule in group["rules"]]
    assert len(names) == len(set(names)) >= 5


def test_prometheus_own_tool_takes_them() -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not on this machine")
    text, _ = Metrics(World().hub).text()
    done = subprocess.run([tool, "check", "metrics"], input=text, capture_output=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
    for arguments in (["rules", DEPLOY / "alerts.yml"], ["config", DEPLOY / "prometheus.yml"]):
        done = subprocess.run([tool, "check", *arguments], capture_output=True)
        assert done.returncode == 0, done.stderr
