"""A relay that is killed and comes back: what runs between nodes goes on, what lasts is there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from pyodide_node.config import NodeConfig, models_url, relay_url
from pyodide_node.core import KwaaiNetCore
from pyodide_node.hosts.native import native_host
from pyodide_node.inference.asker import Answer
from pyodide_node.inference.generation import InferenceRequest
from pyodide_node.inference.sampling import Sampling
from relay_server.api.keys import ApiKeys
from relay_server.settings import default_models
from relay_server.state import State
from tests.relay_server.databases import free_port
from tests.relay_server.http import get
from tests.relay_server.test_cli import greeting

MODEL = "kwaai-docs"
PROMPT = "If the file does not exist,"
TOKENS = 60
PATIENCE = 60.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@asynccontextmanager
async def process(*arguments: str, home: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """`kwaainet`, killed when the block ends."""
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay_server", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=os.environ | {"HOME": str(home)},
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()  # or its pipe stays open


@asynccontextmanager
async def relay(port: int, state: Path, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    where = ("--port", str(port), "--no-stun", "--models", str(default_models()))
    async with process("relay", *where, "--state", str(state), *options, home=state) as started:
        await greeting(started)
        yield started


@asynccontextmanager
async def node(url: str, folder: Path, path: str = "webrtc") -> AsyncIterator[None]:
    """A process that serves four blocks, and can be reached directly only."""
    where = ("--relay", url, "--state", str(folder), "--path", path)
    what = ("--model", MODEL, "--max-blocks", "4", "--network", "1000")
    async with process("start", *where, *what, home=folder):
        yield


async def serving(url: str, count: int) -> None:
    """Return when that many nodes serve the whole model, by the relay's own map."""

    async def look() -> bool:
        told = json.loads((await get(url, "/map.json")).body)
        models = [model for model in told["models"] if model["name"] == MODEL]
        return bool(models) and models[0]["nodes"] == count and models[0]["state"] == "whole"

    async with asyncio.timeout(PATIENCE):
        while not await look():  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


async def test_an_answer_goes_on_while_the_relay_is_killed_and_started_again(
    tmp_path: Path,
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    request = InferenceRequest(
        prompt=PROMPT, max_tokens=TOKENS, sampling=Sampling(temperature=1.5, seed=3)
    )
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(relay(port, tmp_path / "relay"))
        for name in ("a", "b"):
            await stack.enter_async_context(node(url, tmp_path / name))
        await serving(url, 2)
        host = await native_host(tmp_path / "asker")
        stack.callback(host.close)
        config = NodeConfig(
            relays=(relay_url(url),),
            sources=(models_url(url),),
            services=frozenset(),
            path="webrtc",
        )
        core = KwaaiNetCore(host, config)
        stack.push_async_callback(core.close)
        await core.initialize()
        answers: list[Answer] = []
        whole = [chunk.text async for chunk in core.run_inference(request, answers.append)]
        ids = answers[-1].ids
        assert len(ids) > 30

        chunks = core.run_inference(request, answers.append)
        text = [(await anext(chunks)).text for _ in range(3)]
        running.kill()
        await running.wait()
        async with asyncio.timeout(PATIENCE):
            while (await core.status())["relay"]["connected"]:  # noqa: ASYNC110 - the kernel tells it
                await asyncio.sleep(0.01)
        text += [(await anext(chunks)).text for _ in range(10)]  # with no relay at all

        begun = time.monotonic()
        await stack.enter_async_context(relay(port, tmp_path / "relay"))
        started = time.monotonic() - begun
        await serving(url, 2)
        text += [chunk.text async for chunk in chunks]
        assert "".join(text) == "".join(whole)
        assert (answers[-1].ids, answers[-1].reroutes) == (ids, 0)
        assert started < 5.0
        assert [chunk.text async for chunk in core.run_inference(request)] == whole


@asynccontextmanager
async def asked(
    port: int, key: str, tokens: int
) -> AsyncIterator[tuple[int, asyncio.StreamReader]]:
    """The status of a stream through the API, and the rest of it once it has begun."""
    body = json.dumps(
        {"model": MODEL, "prompt": PROMPT, "max_tokens": tokens, "stream": True, "temperature": 2}
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(
            f"POST /v1/completions HTTP/1.1\r\nHost: relay\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        status = int((await reader.readline()).split()[1])
        if status == 200:
            await reader.readuntil(b"data: ")
        yield status, reader
    finally:
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()


async def test_keys_and_what_they_used_outlive_a_kill(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    state = tmp_path / "relay"
    with State(state) as opened:
        key = ApiKeys(opened).add("ada", tokens_per_day=500)
    async with node(url, tmp_path / "a", "auto"), node(url, tmp_path / "b", "auto"):
        async with relay(port, state, "--api") as running:
            await serving(url, 2)
            async with asked(port, key, 400) as (status, _):
                assert status == 200
                running.kill()
                await running.wait()
        with State(state) as opened:
            ((_, used),) = ApiKeys(opened).list()
        # What was held for the answer counts whole: a kill never gives a key more than its quota.
        assert (used.requests, used.completion_tokens) == (1, 400)
        async with relay(port, state, "--api"):
            await serving(url, 2)
            async with asked(port, key, 400) as (status, reader):
                assert status == 429
                assert b"has 100 left" in await reader.readuntil(b"}}")
            async with asked(port, key, 50) as (status, _):
                assert status == 200
