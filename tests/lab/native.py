"""A native member as a process: `python -m tests.lab.native FOLDER`, where its identity lies.

Each line of standard input is a command in JSON with a number, each line of output its answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, cast

from pyodide_node.hosts.base import Engine, Host, Store
from pyodide_node.hosts.native.clock import NativeClock
from pyodide_node.hosts.native.keys import load_keys
from pyodide_node.hosts.native.transport import NativeTransport
from tests.lab.member import Member


def host(folder: Path) -> Host:
    return Host(
        kind="native",
        clock=NativeClock(),
        keys=load_keys(folder / "identity.pem"),
        transport=NativeTransport(),
        engine=cast(Engine, None),
        store=cast(Store, None),
    )


async def main() -> None:
    commands = _Commands(host(Path(sys.argv[1])))
    lines, loop = asyncio.StreamReader(), asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with asyncio.TaskGroup() as running:
        while line := await lines.readline():
            running.create_task(commands.answer(json.loads(line)))


class _Commands:
    def __init__(self, host: Host) -> None:
        self._host = host
        self._member: Member | None = None

    async def answer(self, command: dict[str, Any]) -> None:
        said = await getattr(self, command["do"])(*command["with"])
        print(json.dumps({"number": command["number"], "said": said}), flush=True)

    async def join(self, relay: str) -> str:
        await self.leave()
        self._member = Member(self._host, relay)
        return await self._member.joined()

    async def ask(self, peer: str) -> dict[str, Any]:
        assert self._member is not None
        return await self._member.ask(peer)

    async def route(self, peer: str) -> str | None:
        assert self._member is not None
        return self._member.route(peer)

    async def leave(self) -> None:
        if self._member is not None:
            await self._member.close()
            self._member = None


if __name__ == "__main__":
    asyncio.run(main())
