"""Two tabs run a model that is as wide as Llama 8B, in int4."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from relay_server.demo.network import DemoNetwork, DemoOptions
from relay_server.demo.report import reference_ids
from tests.wide_model import LLAMA_8B, make_wide_model

ATTRIBUTES = {
    "max-resources": "cpu:100,memory:1100,storage:1000",
    "engine": "wasm-int4",
    "model": "wide",
    "max-blocks": "2",
}


@pytest.mark.slow
@pytest.mark.timeout(500)
async def test_four_blocks_over_two_tabs_say_what_the_unsplit_model_says(tmp_path: Path) -> None:
    make_wide_model(tmp_path / "wide", replace(LLAMA_8B, blocks=4))
    options = DemoOptions(tabs=2, native=0, model="wide", models=tmp_path, max_blocks=2)
    async with DemoNetwork(options) as network:
        for _ in range(2):
            visitor = await network.add_visitor()
            await visitor.page.goto(network.site.page("chat", ATTRIBUTES))
            status = await visitor.agree()
            assert status["engine"] == "wasm-int4"
            memory = status["budget"]["memory"]
            assert memory["used"] <= memory["limit"]
        await network.covered()
        answer = await visitor.ask(
            lambda text: None, prompt="w5 w9 w13", max_tokens=5, temperature=0
        )
        assert answer["ids"] == await reference_ids(network, answer["prompt_ids"], 5)
        assert [(hop["first_block"], hop["last_block"]) for hop in answer["route"]] == [
            (0, 2),
            (2, 4),
        ]
        assert len({hop["peer"] for hop in answer["route"]}) == 2
