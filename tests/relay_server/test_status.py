"""The relay tells how much it does, and nothing about anybody."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from pyodide_node.wire.messages import Forward, Records
from relay_server import Relay, RelaySettings
from relay_server.status import metrics, summary
from tests.relay_server.client import MODEL, Client, announcement
from tests.relay_server.fakes import World
from tests.relay_server.http import get
from tests.relay_server.test_models import MANIFEST, add

LINE = re.compile(r'(# (HELP|TYPE) \w+ .+|(\w+)(\{reason="\w+"\})? (\d+))')


async def test_healthy(relay: Relay) -> None:
    answer = await get(relay.url, "/healthz")
    assert (answer.status, answer.body) == (200, b"ok\n")


async def test_ready_until_it_is_full() -> None:
    async with Relay(RelaySettings(port=0, stun=False, max_connections=1)) as relay:
        answer = await get(relay.url, "/readyz")
        assert (answer.status, answer.body) == (200, b"ok\n")
        async with Client(relay.mesh_url):
            answer = await get(relay.url, "/readyz")
            assert (answer.status, answer.body) == (503, b"Full\n")


async def test_the_summary_counts_nodes_a_block() -> None:
    world = World()
    for name, first, last in (("a", 0, 2), ("b", 1, 4), ("c", 1, 2)):
        node = await world.node(name)
        await node.publish(announcement(first=first, last=last))
    other = await world.node("d")
    await other.publish(announcement(bytes(32), 2, 3))
    await world.node("e")
    assert summary(world.hub, {MODEL.hex(): "small"}) == {
        "nodes": 5,
        "models": [
            {"id": bytes(32).hex(), "name": "", "nodes": 1, "blocks": [0, 0, 1]},
            {"id": MODEL.hex(), "name": "small", "nodes": 3, "blocks": [1, 3, 1, 1]},
        ],
    }


async def test_the_summary_is_served_with_the_names_known_here(tmp_path: Path) -> None:
    add(tmp_path, "small")
    model = hashlib.sha256(MANIFEST).digest()
    settings = RelaySettings(port=0, stun=False, models=tmp_path)
    async with Relay(settings) as relay, Client(relay.mesh_url) as node:
        await node.subscribe(model)
        assert (await node.expect(Records)).records == []
        await node.publish(announcement(model))
        await node.forward(node.key, b"published")
        await node.forwarded()
        answer = await get(relay.url, "/status.json")
    told = json.loads(answer.body)
    assert [(m["name"], m["blocks"]) for m in told["models"]] == [("small", [1, 1, 1])]
    assert answer.headers["access-control-allow-origin"] == "*"
    for private in (node.key.hex(), "127.0.0.1"):
        assert private not in answer.body.decode()


async def test_metrics_count_what_was_done() -> None:
    world = World()
    node = await world.node("node")
    await node.publish()
    node.send(Forward(node.key), b"12345")
    node.send(Forward(bytes(32)), b"12345")
    stranger = await world.node("stranger")
    world.hub.received(stranger.node, b"junk")
    text = "".join(metrics(world.hub))
    values = {}
    for line in text.splitlines():
        matched = LINE.fullmatch(line)
        assert matched is not None, line
        if matched[3]:
            values[matched[3].removeprefix("kwaainet_relay_") + (matched[4] or "")] = int(
                matched[5]
            )
    assert values == {
        "connections": 1,
        "handshakes": 0,
        "records": 1,
        "entered_total": 2,
        "published_total": 1,
        "forwarded_frames_total": 1,
        "forwarded_bytes_total": 5,
        'undelivered_total{reason="absent"}': 1,
        'refused_total{reason="ProtocolError"}': 1,
        "throttled_total": 0,
        "stun_answers_total": 0,
        "api_answers_total": 0,
    }


async def test_metrics_are_served_as_prometheus_reads_them(relay: Relay) -> None:
    answer = await get(relay.url, "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b"# TYPE kwaainet_relay_connections gauge\nkwaainet_relay_connections 0\n" in answer.body
