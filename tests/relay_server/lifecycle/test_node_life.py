"""A node's life as people lead it: every command a process of its own, against a real relay."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time

import pytest

from pyodide_node.config import NodeConfig, models_url, relay_url
from pyodide_node.core import KwaaiNetCore
from pyodide_node.hosts.native import native_host
from pyodide_node.inference.generation import InferenceRequest
from pyodide_node.inference.sampling import Sampling
from relay_server.lifecycle.door import ask
from relay_server.lifecycle.lock import holder
from relay_server.lifecycle.speed import Speeds, line_speed_to
from tests.relay_server.lifecycle.conftest import PATIENCE, User

ON_THE_MAP = 10.0
"""Seconds from the command to the relay's map."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def served(user: User) -> bool:
    return any(entry.announcement.serves for entry in user.relay.hub.directory)


async def on_the_map(user: User) -> None:
    """The map is the relay's own, which changes in this loop: a look at each turn is cheap."""
    async with asyncio.timeout(PATIENCE):
        while not served(user):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def off_the_map(user: User) -> None:
    async with asyncio.timeout(PATIENCE):
        while served(user):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_node_starts_lives_and_stops_in_the_background(user: User) -> None:
    begun = time.monotonic()
    starting = asyncio.create_task(user.run("start", "--daemon", "--max-blocks", "4"))
    await on_the_map(user)
    seconds = time.monotonic() - begun
    code, out, err = await starting
    assert (code, err) == (0, "")
    pid = holder(user.places.lock)
    assert f"process {pid}" in out
    assert seconds < ON_THE_MAP

    code, out, _ = await user.run("status", "--json")
    told = json.loads(out)
    assert (code, told["pid"], told["node"]["state"]) == (0, pid, "ready")
    assert told["node"]["model"]["name"] == "kwaai-docs"
    assert told["memory_mb"] > 10
    assert told["health"]["well"]
    first, last = told["node"]["span"]
    assert last - first == 4
    (entry,) = user.relay.hub.directory
    assert entry.announcement.throughput == pytest.approx(told["node"]["throughput"], abs=0.1)

    code, out, err = await user.run("start")
    assert code == 1
    assert f"process {pid}" in err

    code, out, _ = await user.run("status")
    assert code == 0
    assert "4 of 8" in out or "8 of 8" in out
    code, out, _ = await user.run("logs", "--lines", "1")
    assert re.match(r"\d{4}-.*Z INFO ready, connected, kwaai-docs blocks", out)

    code, out, _ = await user.run("restart")
    again = holder(user.places.lock)
    assert code == 0
    assert again not in (pid, None)
    told = ask(user.places.socket, "process")
    assert told["node"]["span"][1] - told["node"]["span"][0] == 4

    code, out, _ = await user.run("stop")
    assert (code, out) == (0, "The node has stopped.\n")
    assert holder(user.places.lock) is None
    assert not user.places.socket.exists()
    await off_the_map(user)
    for command in ("stop", "status"):
        code, _, err = await user.run(command)
        assert code == 1
        assert "start it with `kwaainet start --daemon`" in err


@pytest.mark.parametrize("how", ["SIGTERM", "stop"])
async def test_an_answer_under_way_ends_before_the_node_does(user: User, how: str) -> None:
    process = await user.process("start", "--max-resources", "cpu:30,memory:2000,storage:500")
    await on_the_map(user)
    host = await native_host(user.home / "asker")
    config = NodeConfig(
        relays=(relay_url(user.relay.url),),
        sources=(models_url(user.relay.url),),
        services=frozenset(),
    )
    core = KwaaiNetCore(host, config)
    answers = []
    try:
        await core.initialize()
        request = InferenceRequest(
            prompt="To open a file", max_tokens=60, sampling=Sampling(temperature=0.0)
        )
        chunks = 0
        stopping = None
        async for _ in core.run_inference(request, answers.append):
            chunks += 1
            if chunks == 3:
                if how == "stop":
                    stopping = asyncio.create_task(user.run("stop"))
                else:
                    process.send_signal(signal.SIGTERM)
                await off_the_map(user)
                assert process.returncode is None
        answer = answers[-1]
        assert len(answer.ids) > 3
        assert answer.finish_reason in ("stop", "length")
        assert answer.reroutes == 0
    finally:
        await core.close()
        host.close()
    async with asyncio.timeout(PATIENCE):
        await process.communicate()
        if stopping is not None:
            assert (await stopping)[0] == 0
    assert process.returncode == 0


async def test_a_speed_is_measured_once_and_announced_no_higher_than_the_network(
    user: User,
) -> None:
    code, out, _ = await user.run("benchmark", "--steps", "30", "--json")
    found = json.loads(out)
    assert (code, found["steps"], found["span"]) == (0, 30, [0, 8])
    kept = Speeds(user.places.speeds)
    (name,) = json.loads(user.places.speeds.read_bytes())
    speed = kept.find(name)
    assert speed is not None
    assert speed.rate == pytest.approx(found["rate"], abs=0.1)

    await user.run("start", "--daemon")
    (entry,) = user.relay.hub.directory
    line = kept.find(line_speed_to(user.relay.mesh_url))
    assert line is not None
    both = min(speed.rate, 8 * line.rate / (4 * 256))
    assert entry.announcement.throughput == pytest.approx(both, rel=1e-3)
    await user.run("stop")
    assert kept.find(name) == speed

    # 0.1 Mbit/s are 12,500 bytes a second: 12.2 positions of 256 floats, through eight blocks.
    await user.run("start", "--daemon", "--network", "0.1")
    (entry,) = user.relay.hub.directory
    assert entry.announcement.throughput == pytest.approx(8 * 12_500 / (4 * 256), rel=0.01)
    await user.run("stop")


async def test_a_node_that_cannot_start_says_why(user: User) -> None:
    code, _, err = await user.run("start", "--daemon", "--model", "absent")
    assert code == 1
    assert "no source offers the model 'absent'" in err
    assert holder(user.places.lock) is None
    code, _, err = await user.run("start", "--model", "absent")
    assert code == 1
    assert len(err.splitlines()) == 1


async def test_a_node_that_was_killed_leaves_nothing_in_the_way(user: User) -> None:
    await user.run("start", "--daemon")
    pid = holder(user.places.lock)
    assert pid
    os.kill(pid, signal.SIGKILL)
    await off_the_map(user)
    code, _, err = await user.run("status")
    assert code == 1
    assert "no node is running" in err
    code, _, _ = await user.run("start", "--daemon")
    assert code == 0
    assert (await user.run("stop"))[0] == 0


async def test_the_log_can_be_followed(user: User) -> None:
    await user.run("start", "--daemon")
    reading = await user.process("logs", "--follow", "--lines", "1")
    assert reading.stdout is not None
    async with asyncio.timeout(PATIENCE):
        assert b"ready" in await reading.stdout.readline()
        await user.run("stop")
        while b"stopping" not in await reading.stdout.readline():
            pass
    reading.send_signal(signal.SIGINT)
    await reading.communicate()
    assert reading.returncode == 0


async def test_health_and_connections_are_told(user: User) -> None:
    await user.run("start", "--daemon")
    code, out, _ = await user.run("health-status", "--json")
    told = json.loads(out)
    assert (code, told["well"], told["watching"]) == (0, True, False)
    code, out, _ = await user.run("health-enable")
    assert code == 0
    assert "by the node that runs" in out
    assert "health = true" in user.config.read_text()
    assert json.loads((await user.run("health-status", "--json"))[1])["watching"]
    assert (await user.run("health-disable"))[0] == 0
    assert "health = false" in user.config.read_text()

    assert (await user.run("monitor", "alert"))[:2] == (0, "")
    code, out, _ = await user.run("monitor", "alert", "--min-peers", "1")
    assert (code, out) == (1, "0 peers, fewer than 1\n")
    code, out, _ = await user.run("monitor", "stats", "--json")
    assert json.loads(out)["relay"]["connected"]
    await user.run("stop")


async def test_what_fits_is_reckoned_and_written_down(user: User) -> None:
    code, out, _ = await user.run("calibrate", "--apply", "min", "--json")
    assert code == 0
    found = json.loads(out)
    levels = [found["levels"][name]["memory"] for name in ("min", "recommended", "max")]
    assert levels == sorted(levels)
    code, out, _ = await user.run("config", "--json")
    rows = json.loads(out)
    assert rows["max_blocks"]["value"] == found["levels"]["min"]["blocks"]
    assert f"memory:{levels[0]}," in rows["max_resources"]["value"]
    assert rows["relay"] == {"value": user.relay.url, "from": "$KWAAINET_NODE_RELAY"}
