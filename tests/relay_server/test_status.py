"""The relay tells how much it does, and nothing about anybody."""

from __future__ import annotations

import re

from pyodide_node.wire.messages import Forward
from relay_server import Relay, RelaySettings
from relay_server.status import metrics
from tests.relay_server.client import Client
from tests.relay_server.fakes import World
from tests.relay_server.http import get

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
