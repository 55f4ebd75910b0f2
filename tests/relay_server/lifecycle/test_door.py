"""The control socket: calls in, replies to whoever called, nothing to anybody else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pyodide_node.errors import LocalError
from relay_server.lifecycle.door import Door, ask


class Node:
    """Answers as `Control` does: `echo` at once, `fail` with an error, `hang` never."""

    def __init__(self, path: Path) -> None:
        self.calls: list[dict[str, Any]] = []
        self.called = asyncio.Event()
        self.door = Door(path, self.deliver, {"own": self.own})

    def deliver(self, text: str) -> None:
        call = json.loads(text)
        self.calls.append(call)
        self.called.set()
        reply = {"type": "reply", "id": call["id"]}
        if call["method"] == "echo":
            self.door.take(reply | {"event": "chunk", "value": "a part"})
            self.door.take(reply | {"event": "done", "value": call["params"]})
        elif call["method"] == "fail":
            self.door.take(reply | {"event": "error", "error": {"message": "no"}})

    async def own(self, params: Any) -> Any:
        return {"own": params}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    made = Node(tmp_path / "node.sock")
    async with made.door:
        yield made


async def call(tmp_path: Path, method: str, params: Any = None) -> Any:
    return await asyncio.to_thread(ask, tmp_path / "node.sock", method, params)


async def test_the_process_answers_what_is_about_it(node: Node, tmp_path: Path) -> None:
    assert await call(tmp_path, "own", [1]) == {"own": [1]}
    assert node.calls == []


async def test_an_error_of_the_node_is_the_callers(node: Node, tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="no"):
        await call(tmp_path, "fail")


async def test_callers_get_their_own_replies(node: Node, tmp_path: Path) -> None:
    async def speak(number: int) -> list[dict[str, Any]]:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "node.sock")
        writer.write(json.dumps({"id": 7, "method": "echo", "params": number}).encode() + b"\n")
        lines = [json.loads(await reader.readline()) for _ in range(2)]
        writer.close()
        return lines

    for number, lines in enumerate(await asyncio.gather(*map(speak, range(5)))):
        assert [line["event"] for line in lines] == ["chunk", "done"]
        assert {line["id"] for line in lines} == {7}
        assert lines[1]["value"] == number


@pytest.mark.parametrize("line", [b"junk\n", b"[]\n", b'{"id": 1}\n', b'{"id":"x","method":"m"}\n'])
async def test_a_malformed_call_is_answered(node: Node, tmp_path: Path, line: bytes) -> None:
    reader, writer = await asyncio.open_unix_connection(tmp_path / "node.sock")
    writer.write(line)
    assert json.loads(await reader.readline())["event"] == "error"
    writer.close()


async def test_what_a_caller_asked_ends_when_it_leaves(node: Node, tmp_path: Path) -> None:
    _, writer = await asyncio.open_unix_connection(tmp_path / "node.sock")
    writer.write(b'{"id": 1, "method": "hang"}\n')
    await node.called.wait()
    node.called.clear()
    writer.close()
    await node.called.wait()
    hang, cancel = node.calls
    assert (cancel["method"], cancel["params"]) == ("cancel", {"call": hang["id"]})


async def test_only_its_owner_may_open_it_and_it_goes_with_the_node(tmp_path: Path) -> None:
    path = tmp_path / "node.sock"
    path.write_text("left by a dead process")
    async with Node(path).door:
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()
    with pytest.raises(LocalError, match="no node is running"):
        ask(path, "status")
