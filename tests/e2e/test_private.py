"""A private model: its owner's machine keeps the key, and a tab gets it when it was granted."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from pyodide_node.errors import LocalError
from pyodide_node.model.manifest import decode_manifest
from relay_server.commands.private import grant, lock_model
from relay_server.demo.network import DemoNetwork, DemoOptions
from relay_server.demo.report import reference_ids
from relay_server.settings import default_models


async def test_a_tab_runs_a_private_model_once_it_is_granted(tmp_path: Path) -> None:
    state, models, plain = tmp_path / "state", tmp_path / "models", tmp_path / "plain"
    source = default_models()
    assert source is not None
    await asyncio.to_thread(shutil.copytree, source / "kwaai-docs", plain)
    target = models / "kwaai-docs"
    await asyncio.to_thread(lock_model, plain, target, state, lambda *step: None)

    options = DemoOptions(tabs=1, native=1, models=models)
    async with DemoNetwork(options) as network:
        await network.add_native(state)
        await network.add_visitor()
        visitor = network.visitors[0]
        with pytest.raises(LocalError, match="was not granted it") as caught:
            await visitor.agree()
        (did,) = re.findall(r"kwaainet model grant kwaai-docs (did:key:z\w+)", str(caught.value))
        await asyncio.to_thread(grant, "kwaai-docs", did, state=state, models=models)

        await visitor.reload()
        await network.covered()
        answer = await visitor.ask(
            lambda text: None, prompt="If the file", max_tokens=12, temperature=0
        )
        assert len(answer["route"]) == 2
        # The open model has the same name, and says what the locked one must say.
        network.models = source
        network.manifest = decode_manifest((source / "kwaai-docs/manifest.json").read_bytes())
        assert answer["ids"] == await reference_ids(network, answer["prompt_ids"], 12)
