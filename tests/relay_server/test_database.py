"""Relays that share a PostgreSQL database, as operators run them, and what happens without it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from relay_server.api.keys import ApiKeys
from relay_server.settings import default_models
from relay_server.state import State
from tests.relay_server.client import PATIENCE, Client
from tests.relay_server.databases import PASSWORD, Postgres
from tests.relay_server.http import get
from tests.relay_server.test_cli import greeting, kwaainet, said

pytestmark = pytest.mark.slow


async def state_errors(url: str) -> float:
    text = (await get(url, "/metrics")).body.decode()
    for family in text_string_to_metric_families(text):
        if family.name == "kwaainet_relay_state_errors":
            return float(family.samples[0].value)
    raise AssertionError(text)


async def test_keys_of_one_relay_are_the_others_and_an_outage_is_told(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KWAAINET_RELAY_DATABASE", postgres.new())
    models = ("--models", str(default_models()))
    options = ("relay", "--port", "0", "--no-stun", "--api", *models)
    # Both make the tables: neither has been there before.
    async with (
        kwaainet(*options, "--state", str(tmp_path / "a")) as one,
        kwaainet(*options, "--state", str(tmp_path / "b")) as other,
    ):
        urls = []
        for text in await asyncio.gather(greeting(one), greeting(other)):
            found = re.search(r"(http://127\.0\.0\.1:\d+)/v1", text)
            assert found is not None
            assert PASSWORD not in text
            urls.append(found[1])
        code, key, _ = await said("api-key", "add", "ada", "--state", str(tmp_path / "a"))
        assert code == 0

        async def asked(url: str) -> tuple[int, bytes]:
            answer = await get(url, "/v1/models", Authorization=f"Bearer {key.strip()}")
            return answer.status, answer.body

        assert [(await asked(url))[0] for url in urls] == [200, 200]
        await asyncio.to_thread(postgres.stop)
        try:
            status, body = await asked(urls[0])
            assert (status, b"state_unavailable" in body) == (503, True)
            assert str(postgres.folder).encode() not in body
            assert await state_errors(urls[0]) >= 1
            async with Client(
                urls[0].replace("http", "ws") + "/mesh"
            ) as node:  # which is no matter
                await node.forward(node.key, b"still here")
                assert (await node.forwarded())[1] == b"still here"
        finally:
            await asyncio.to_thread(postgres.start)
        assert [(await asked(url))[0] for url in urls] == [200, 200]
        with State(tmp_path / "a") as state:  # the map's history is there, and only that
            assert ApiKeys(state).list() == []
        for process in (one, other):
            process.terminate()
            async with asyncio.timeout(PATIENCE):
                _, err = await process.communicate()
            assert process.returncode == 0
            assert PASSWORD not in err.decode()
            assert (b"state_failed" in err) is (process is one)
