"""One Node process with the tab's tokenizer in it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from tests.tokenizers.families import FAMILIES, described

HERE = Path(__file__).parent


class Tab:
    """loader/worker/tokenizer.ts, asked over pipes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def load(self, described: str) -> list[str]:
        """Use this tokenizer.json from now on; its special tokens."""
        special: list[str] = self._ask(load=described)
        return special

    def encode(self, *texts: str) -> list[list[int]]:
        ids: list[list[int]] = self._ask(encode=texts)
        return ids

    def decode(self, *lists: list[int]) -> list[str]:
        texts: list[str] = self._ask(decode=lists)
        return texts

    def _ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@pytest.fixture(scope="package")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    bundle = tmp_path_factory.mktemp("tab") / "tokenizer.mjs"
    command = ["node", str(HERE / "tab.mjs"), str(bundle)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, encoding="utf-8", **pipes) as process:
        yield Tab(process)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def python(family: str) -> Tokenizer:
    return Tokenizer.from_str(described(family))


@pytest.fixture(scope="module")
def tab(node: Tab, family: str) -> Tab:
    node.load(described(family))
    return node
