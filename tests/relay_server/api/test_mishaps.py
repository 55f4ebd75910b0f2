"""Clients that leave, quotas that end, nodes that die, relays that stop."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from openai import AsyncStream
from openai.types import Completion

from pyodide_node.model.manifest import decode_manifest, encode_manifest
from relay_server.settings import default_models
from tests.relay_server.api.world import MODEL, PROMPT, Place, eventually, place
from tests.relay_server.test_relay import self_signed

LONG: Any = {"model": MODEL, "prompt": PROMPT, "max_tokens": 400, "seed": 3, "temperature": 1.5}
SHORT: Any = {"model": MODEL, "prompt": PROMPT, "max_tokens": 2}


@asynccontextmanager
async def stream(here: Place, key: str | None = None) -> AsyncIterator[AsyncStream[Completion]]:
    """A long answer that has begun."""
    async with here.client(key) as client:
        opened = await client.completions.create(stream=True, **LONG)
        await anext(opened)
        yield opened
        await opened.close()


async def settled(here: Place, key: str | None = None) -> None:
    """What was reserved has been replaced by what was used: fewer tokens."""

    async def fewer() -> bool:
        used = here.usage(key)
        return used.requests > 0 and used.completion_tokens < LONG["max_tokens"]

    await eventually(fewer)


async def idle(here: Place) -> None:
    """No node works on any answer."""

    async def none_open() -> bool:
        return not any(node.busy for node in here.nodes)

    await eventually(none_open)


async def test_a_client_that_leaves_stops_its_answer(tmp_path: Path) -> None:
    async with place(tmp_path, api_answers_per_key=1) as here:
        await here.node()
        await here.serving()
        async with stream(here):
            assert any(node.busy for node in here.nodes)
            answer = await here.ask(body=SHORT)  # its place is taken
            assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
            assert int(answer.headers["retry-after"]) > 0
        await settled(here)
        await idle(here)
        assert (await here.ask(body=SHORT)).status == 200


async def test_a_client_that_leaves_before_its_answer_is_whole_stops_it(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        node = await here.node()
        await here.serving()
        asking = asyncio.create_task(here.ask(body={**LONG, "stream": False}))

        async def working() -> bool:
            return node.busy

        await eventually(working)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await settled(here)
        await idle(here)


async def test_all_places_taken_is_said_so(tmp_path: Path) -> None:
    async with place(tmp_path, api_max_answers=1) as here:
        await here.node()
        await here.serving()
        async with stream(here):
            answer = await here.ask(body=SHORT, key=here.add_key("another"))
            assert (answer.status, answer.error["code"]) == (503, "overloaded")


async def test_quotas_end_and_outlive_the_relay(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        await here.node()
        await here.serving()
        few, slow = (
            here.add_key("few", tokens_per_day=20),
            here.add_key("slow", requests_per_minute=1),
        )
        assert (await here.ask(body=SHORT, key=slow)).status == 200
        assert (await here.ask(body={**SHORT, "max_tokens": 12}, key=few)).status == 200

        async def counted() -> bool:
            return here.usage(few).prompt_tokens > 0

        await eventually(counted)
    async with place(tmp_path) as here:
        await here.node()
        await here.serving()
        for key, code in ((few, "insufficient_quota"), (slow, "rate_limit_exceeded")):
            async with here.client(key) as client:
                with pytest.raises(openai.RateLimitError) as caught:
                    await client.completions.create(**{**SHORT, "max_tokens": 12})
            assert caught.value.code == code
            assert int(caught.value.response.headers["retry-after"]) > 0


async def test_a_node_that_dies_is_gone_around(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        await here.node()
        await here.node()
        await here.serving()
        async with here.client() as client:
            greedy = {**LONG, "temperature": 0}
            whole = await client.completions.create(**greedy)
            opened = await client.completions.create(stream=True, **greedy)
            text = (await anext(opened)).choices[0].text
            (busy,) = (node for node in here.nodes if node.busy)
            await busy.close()
            async for chunk in opened:
                text += chunk.choices[0].text
        assert text == whole.choices[0].text


async def test_the_relay_holds_no_blocks_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyodide_node.inference.asker._ROUTE_PATIENCE", 1.0)
    async with place(tmp_path) as here:
        half = await here.node(max_blocks=4)
        answer = await here.ask(body=SHORT)
        assert (answer.status, answer.error["code"]) == (503, "model_not_served")
        await here.node(max_blocks=4)
        await here.serving()
        assert (await here.ask(body=SHORT)).status == 200
        async with stream(here) as opened:
            assert half.busy
            await half.close()
            with pytest.raises(openai.APIError, match="nobody serves") as caught:
                async for _ in opened:
                    pass
        assert caught.value.code == "mesh_unavailable"


async def test_a_relay_that_stops_ends_its_answers_and_counts_them(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        await here.node()
        await here.serving()
        key = here.add_key("stopped")
        async with here.client(key) as client:
            opened = await client.completions.create(stream=True, **LONG)
            await anext(opened)
            await here.stack.aclose()
            with pytest.raises((openai.APIError, OSError)):
                async for _ in opened:
                    pass
    await settled(here, key)


async def test_tls_and_names_do_not_keep_the_relays_own_node_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    named = {"host": "localhost", "audiences": frozenset({"localhost"})}
    async with place(tmp_path, tls_cert=cert, tls_key=key, **named) as here:
        await here.node()
        await here.serving()
        async with here.client() as client:
            answer = await client.completions.create(**SHORT)
    assert answer.choices[0].text


async def test_models_take_turns_in_memory(tmp_path: Path) -> None:
    models = default_models()
    assert models is not None
    shelf = tmp_path / "models"
    for name in (MODEL, "twin"):
        shutil.copytree(models / MODEL, shelf / name)
    path = shelf / "twin" / "manifest.json"
    twin = msgspec.structs.replace(decode_manifest(path.read_bytes()), name="twin")
    path.write_bytes(encode_manifest(twin))
    async with place(tmp_path, models=shelf, api_max_loaded=1) as here:
        await here.node()
        await here.node(model="twin")
        await here.serving()
        texts = []
        for name in (MODEL, "twin", MODEL):
            async with here.client() as client:
                answer = await client.completions.create(**{**SHORT, "model": name, "seed": 1})
            texts.append(answer.choices[0].text)
            assert len(here.relay.hub) == len(here.nodes) + 1
        async with here.client() as client:  # who is busy stays
            both = await asyncio.gather(
                *(
                    client.completions.create(**{**SHORT, "model": name, "seed": 1})
                    for name in (MODEL, "twin")
                )
            )
        assert {answer.choices[0].text for answer in both} == set(texts)
    assert len(set(texts)) == 1
