"""The relay's API asks the same mesh as the page, and gets the same text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

from relay_server.api.keys import ApiKeys
from relay_server.state import State
from tests.e2e.conftest import Start

ASKED: dict[str, Any] = {"max_tokens": 24, "temperature": 0.8, "top_p": 0.9, "seed": 11}
WORDS = "If the file does not exist,"


async def test_the_openai_client_streams_what_the_page_says(start: Start, tmp_path: Path) -> None:
    network = await start(tabs=2, api_state=tmp_path)
    with State(tmp_path) as state:
        key = ApiKeys(state).add("tests")
    messages: Any = [{"role": "user", "content": WORDS}]
    page = await network.visitors[0].ask(lambda text: None, prompt=WORDS, **ASKED)
    assert len(page["route"]) == 2

    async with AsyncOpenAI(base_url=f"{network.relay.url}/v1", api_key=key) as client:
        name = network.manifest.name
        plain = await client.completions.create(model=name, prompt=WORDS, **ASKED)
        stream = await client.chat.completions.create(
            model=name, messages=messages, stream=True, **ASKED
        )
        said = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert plain.choices[0].text == page["text"]
    assert "".join(said) == page["text"]  # without a chat template, messages are text to continue
    assert len(said) > 4
