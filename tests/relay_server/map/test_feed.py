"""The feed over real sockets tells what /map.json tells."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from relay_server import Relay, RelaySettings
from tests.relay_server.client import PATIENCE, Client, announcement
from tests.relay_server.http import get
from tests.relay_server.map.test_hostile import REQUEST
from tests.relay_server.map.viewer import Follower
from tests.relay_server.test_models import MANIFEST, add


async def document(relay: Relay) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((await get(relay.url, "/map.json")).body)
    return told


async def test_it_shows_nodes_coming_and_going(relay: Relay) -> None:
    async with Follower(relay.url) as follower:
        assert follower.shown["totals"]["state"] == "idle"
        async with Client(relay.mesh_url) as one, Client(relay.mesh_url) as two:
            await one.publish(announcement(first=0, last=2))
            await two.publish(announcement(first=1, last=3))
            await follower.until_nodes(2)
            (model,) = follower.shown["models"]
            assert model["blocks"] == [1, 2, 1]
            assert model["rates"] == [50, 100, 50]
            assert follower.shown["totals"]["state"] == "up"
            told = await document(relay)
            assert told.pop("spans") == {model["id"]: [[0, 2, 1, 50.0], [1, 3, 1, 50.0]]}
            assert follower.shown == told | {"type": "map"}
        await follower.until_nodes(0)
        assert follower.shown["models"] == []


async def test_who_comes_later_sees_the_same(relay: Relay) -> None:
    async with Follower(relay.url) as early, Client(relay.mesh_url) as node:
        await node.publish()
        await early.until_nodes(1)
        async with Follower(relay.url) as late:
            assert late.shown == early.shown


async def test_a_model_of_the_relay_is_shown_by_name_before_anybody_serves_it(
    tmp_path: Path,
) -> None:
    add(tmp_path, "small")
    settings = RelaySettings(port=0, stun=False, models=tmp_path)
    async with Relay(settings) as relay:
        (model,) = (await document(relay))["models"]
        blocks = json.loads(MANIFEST)["blocks"]
        assert (model["name"], model["state"]) == ("small", "idle")
        assert model["blocks"] == [0] * blocks
        async with Follower(relay.url) as follower, Client(relay.mesh_url) as node:
            await node.publish(announcement(bytes.fromhex(model["id"]), 0, blocks))
            await follower.until_nodes(1)
            assert follower.shown["models"][0]["state"] == "whole"


async def test_nothing_of_anybody_is_told(relay: Relay) -> None:
    async with Client(relay.mesh_url) as node:
        async with Follower(relay.url) as follower:
            said = announcement()
            await node.publish(
                type(said)(
                    *(getattr(said, name) for name in said.__struct_fields__[:4]),
                    "<i>me</i>",
                    "native",
                    4096,
                    "my street",
                    "my name",
                )
            )
            await follower.until_nodes(1)
            shown = json.dumps(follower.shown)
            assert follower.shown["totals"]["engines"] == {"other": 1}
        body = (await get(relay.url, "/map.json")).body.decode()
    for told in (shown, body):
        for private in (node.key.hex(), "127.0.0.1", "my street", "my name", "<i>"):
            assert private not in told


async def test_it_is_for_every_site_and_takes_no_credentials(relay: Relay) -> None:
    async with Follower(relay.url, origin="https://elsewhere.example") as follower:
        assert follower.shown["type"] == "map"
    answer = await get(relay.url, "/map.json", Origin="https://elsewhere.example")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers


async def test_an_unchanged_map_is_not_sent_again(relay: Relay) -> None:
    first = await get(relay.url, "/map.json")
    again = await get(relay.url, "/map.json", If_None_Match=first.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    zipped = await get(relay.url, "/map.json", Accept_Encoding="gzip")
    assert gzip.decompress(zipped.body) == first.body
    async with Follower(relay.url) as follower, Client(relay.mesh_url) as node:
        await node.publish()
        await follower.until_nodes(1)
        changed = await get(relay.url, "/map.json", If_None_Match=first.headers["etag"])
        assert changed.status == 200


async def test_viewers_are_bounded() -> None:
    async with Relay(RelaySettings(port=0, stun=False, map_viewers=10)) as relay:
        async with Follower(relay.url):
            with pytest.raises(InvalidStatus) as refused:
                await Follower(relay.url).__aenter__()
            assert refused.value.response.status_code == 503
        async with Follower(relay.url):
            pass  # there is room again


async def test_a_viewer_has_nothing_to_say(relay: Relay) -> None:
    async with Follower(relay.url) as follower:
        await follower.socket.send("hello")
        with pytest.raises(ConnectionClosed):
            await follower.next()
        assert follower.socket.close_code == 1003


async def test_a_viewer_that_does_not_read_is_cut_and_others_go_on(relay: Relay) -> None:
    parts = urlsplit(relay.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(REQUEST)
    await reader.readuntil(b"\r\n\r\n")
    cast(asyncio.ReadTransport, writer.transport).pause_reading()
    async with Follower(relay.url) as follower:
        assert len(relay.map.feed) == 2
        sent = 0
        padding = json.dumps({"type": "alive", "padding": "x" * 65_536}).encode()
        async with asyncio.timeout(PATIENCE):
            while len(relay.map.feed) == 2:
                relay.map.feed.tell(padding)
                await follower.next()
                sent += len(padding)
        assert sent < 64 << 20  # what kernels keep, and a megabyte
        relay.map.feed.tell(padding)
        assert (await follower.next())["type"] == "alive"
    writer.close()


async def test_a_relay_that_stops_says_so() -> None:
    async with Relay(RelaySettings(port=0, stun=False)) as relay:
        follower = await Follower(relay.url).__aenter__()
    async with asyncio.timeout(PATIENCE):
        await follower.socket.wait_closed()
    assert follower.socket.close_code == 1012


async def test_other_paths_are_no_feed(relay: Relay) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(relay.url.replace("http", "ws") + "/map", proxy=None)
    assert refused.value.response.status_code == 404
    assert (await get(relay.url, "/map/feed")).status == 426
