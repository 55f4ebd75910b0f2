"""The examples of docs/API.md, run as they stand there."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from tests.relay_server.api.world import Place

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = Path(__file__).parents[3] / "docs" / "API.md"


def examples(language: str, mesh: Place) -> list[str]:
    """Fenced blocks that ask the relay, with this relay and its key in them."""
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    asking = [block for block in blocks if "kwaai-…" in block]
    return [
        block.replace("http://127.0.0.1:8080", mesh.relay.url).replace("kwaai-…", mesh.key)
        for block in asking
    ]


async def run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    printed, problems = await process.communicate()
    assert process.returncode == 0, problems.decode()
    return printed.decode()


async def test_curl(mesh: Place) -> None:
    (script,) = examples("sh", mesh)
    printed = await run("bash", "-euc", script)
    assert '"object":"list"' in printed
    assert '"object":"text_completion"' in printed
    assert printed.endswith("data: [DONE]\n\n")
    assert '"error"' not in printed


async def test_python(mesh: Place) -> None:
    (script,) = examples("python", mesh)
    printed = await run(sys.executable, "-c", script)
    assert re.search(r"\w.*\n\d+ tokens\n\Z", printed, re.DOTALL)
