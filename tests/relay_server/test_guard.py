"""Who may see what is the operator's, which sites may join, and what every answer carries."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from relay_server import Relay, RelaySettings
from relay_server.origins import may_join
from tests.relay_server.client import Client
from tests.relay_server.http import get


async def test_metrics_are_for_this_machine(relay: Relay) -> None:
    assert (await get(relay.url, "/metrics")).status == 200
    for header in ("X_Forwarded_For", "Forwarded", "X_Real_IP", "Via"):
        answer = await get(relay.url, "/metrics", **{header: "192.0.2.1"})
        assert answer.status == 403, header
        assert b"--admin-token" in answer.body


async def test_metrics_are_for_whoever_has_the_token() -> None:
    async with Relay(RelaySettings(port=0, stun=False, admin_token="s3cret")) as relay:
        for sent in ("", "Bearer", "Bearer ", "Bearer wrong", "s3cret", "Basic s3cret"):
            answer = await get(relay.url, "/metrics", Authorization=sent)
            assert answer.status == 403, sent
        answer = await get(
            relay.url, "/metrics", Authorization="Bearer s3cret", X_Forwarded_For="192.0.2.1"
        )
        assert answer.status == 200
        assert (await get(relay.url, "/map.json")).status == 200


async def test_the_way_to_the_metrics_has_no_by_way(relay: Relay) -> None:
    for path in ("/metrics/", "//metrics", "/%6detrics", "/metrics?x=1", "/METRICS", "/./metrics"):
        answer = await get(relay.url, path, X_Forwarded_For="192.0.2.1")
        assert b"kwaainet_relay" not in answer.body, path


async def test_every_answer_is_hardened(tmp_path: Path) -> None:
    (tmp_path / "worker.js").write_text("1")
    (tmp_path / "frame.html").write_text("<p>")
    async with Relay(RelaySettings(port=0, stun=False, cdn=tmp_path)) as relay:
        for path in ("/healthz", "/metrics", "/map.json", "/absent", "/worker.js", "/mesh"):
            headers = (await get(relay.url, path)).headers
            assert headers["x-content-type-options"] == "nosniff", path
            assert headers["referrer-policy"] == "no-referrer", path
            inert = "default-src 'none'" in headers.get("content-security-policy", "")
            assert inert == (path != "/worker.js"), path
        frame = (await get(relay.url, "/frame.html")).headers["content-security-policy"]
        assert frame.endswith("frame-ancestors *")


async def test_a_relay_may_be_for_some_sites_only(tmp_path: Path) -> None:
    (tmp_path / "frame.html").write_text("<p>")
    settings = RelaySettings(
        port=0,
        stun=False,
        cdn=tmp_path,
        origins=frozenset({"https://b.example", "https://a.example"}),
    )
    async with Relay(settings) as relay:
        for origin in ("https://a.example", relay.url):
            async with Client(relay.mesh_url, headers={"Origin": origin}):
                pass
        async with Client(relay.mesh_url):  # a native node
            pass
        for origin in ("https://c.example", "null", "https://a.example.evil", "http://a.example"):
            with pytest.raises(InvalidStatus) as caught:
                await Client(relay.mesh_url, headers={"Origin": origin}).dial()
            assert caught.value.response.status_code == 403, origin
        policy = (await get(relay.url, "/frame.html")).headers["content-security-policy"]
        assert policy.endswith("frame-ancestors 'self' https://a.example https://b.example")


def test_two_origins_are_none() -> None:
    assert not may_join("https://a.example, https://b.example", "r.example", {"https://a.example"})
    assert may_join("https://r.example:8443", "R.example:8443", {"https://a.example"})


async def test_an_upgrade_with_two_origins_is_refused() -> None:
    settings = RelaySettings(port=0, stun=False, origins=frozenset({"https://a.example"}))
    async with Relay(settings) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(
            b"GET /mesh HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Origin: https://a.example\r\nOrigin: https://evil.example\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert b" 400 " in await reader.readline()
        writer.close()
