"""`kwaainet model add` and then `kwaainet demo`: every family through real tabs.

32-bit shards say what transformers says; fewer bits what the unsplit model of those bits says,
which the demo itself compares.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gguf import GGMLQuantizationType

from tests.build.families import golden, write_family
from tests.build.gguf_files import write_gguf

COUNT = 16


@dataclass(frozen=True)
class Case:
    family: str
    bits: int
    gguf: str = ""
    """Its type, where the checkpoint comes as a GGUF file."""
    engine: str = "wasm"

    def __str__(self) -> str:
        return "-".join(filter(None, (self.family, f"{self.bits}bit", self.gguf, self.engine)))


CASES = [
    Case("llama3", 32),
    Case("qwen2", 32, engine="webgpu"),
    Case("qwen3", 4),
    Case("mistral", 32, gguf="F16"),
    Case("llama3", 4, gguf="Q4_0"),
]
"""tests/runtime has every family in every width in one tab; this is the way that people go."""


async def kwaainet(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "relay_server", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"NO_COLOR": "1"},
    )
    printed, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return printed.decode()


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_an_added_model_answers_from_two_tabs(tmp_path: Path, case: Case) -> None:
    models, report = str(tmp_path / "models"), tmp_path / "report.json"
    source = write_family(tmp_path / "checkpoint", case.family)
    if case.gguf:
        source = write_gguf(
            source, tmp_path / "model.gguf", case.family, GGMLQuantizationType[case.gguf]
        )
    await kwaainet(
        *("model", "add", str(source), "--name", "ours", "--models", models),
        *("--bits", str(case.bits)),
    )
    expected = golden(case.family)
    await kwaainet(
        *("demo", "--headless", "--tabs", "2", "--model", "ours", "--models", models),
        *("--engine", case.engine, "--prompt", expected.prompt),
        *("--max-new-tokens", str(COUNT), "--json", str(report)),
    )
    said: dict[str, Any] = json.loads(report.read_text())
    assert said["match"]
    assert said["prompt_ids"] == expected.prompt_ids
    assert [hop["host"] for hop in said["route"]] == ["tab", "tab"]
    if case.bits == 32:
        assert said["ids"] == expected.ids[: len(said["ids"])]
        assert len(said["ids"]) >= COUNT // 2  # an end of sequence may come
