"""Members as the lab commands them: a process, or a page of a Chromium of its own."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from playwright.async_api import Page, Playwright

from relay_server.demo.browsers import FLAGS, STORAGE_ALLOWED, find_chromium
from tests.lab.places import process
from tests.lab.table import HostKind
from tests.lab.topology import Home

__all__ = ["Remote", "native", "tab"]


class Remote(Protocol):
    """See `member.Member` for what it does: `join` comes first, and gives its key."""

    home: Home
    host: HostKind

    async def do(self, name: str, *given: Any) -> Any: ...


class _Native:
    host: HostKind = "native"

    def __init__(self, home: Home, running: asyncio.subprocess.Process) -> None:
        assert running.stdin is not None
        assert running.stdout is not None
        self.home = home
        self._to, self._from = running.stdin, running.stdout
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}

    async def do(self, name: str, *given: Any) -> Any:
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        command = {"number": number, "do": name, "with": given}
        self._to.write(json.dumps(command).encode() + b"\n")
        return await answer

    async def listen(self) -> None:
        while line := await self._from.readline():
            said = json.loads(line)
            self._waiting.pop(said["number"]).set_result(said["said"])
        for answer in self._waiting.values():
            answer.set_exception(ConnectionError("the member ended"))


@asynccontextmanager
async def native(home: Home, folder: Path) -> AsyncIterator[Remote]:
    command = (sys.executable, "-m", "tests.lab.native", folder / home.namespace)
    async with process(*command, namespace=home.namespace, pipes=True) as running:
        member = _Native(home, running)
        listening = asyncio.create_task(member.listen())
        try:
            yield member
        finally:
            listening.cancel()


class _Tab:
    host: HostKind = "Chromium"

    def __init__(self, home: Home, page: Page) -> None:
        self.home = home
        self._page = page

    async def do(self, name: str, *given: Any) -> Any:
        return await self._page.evaluate(
            "([name, given]) => lab.command(name, given)", [name, given]
        )


@asynccontextmanager
async def tab(home: Home, playwright: Playwright, origin: str) -> AsyncIterator[Remote]:
    folder = Path(tempfile.mkdtemp(prefix="kwaainet-lab-"))
    wrapper = folder / "chromium"
    wrapper.write_text(f'#!/bin/sh\nexec ip netns exec {home.namespace} {find_chromium()} "$@"\n')
    wrapper.chmod(0o755)
    profile = folder / "profile"
    (profile / "Default").mkdir(parents=True)
    (profile / "Default/Preferences").write_text(json.dumps(STORAGE_ALLOWED))
    context = await playwright.chromium.launch_persistent_context(
        profile,
        executable_path=wrapper,
        args=[*FLAGS, f"--unsafely-treat-insecure-origin-as-secure={origin}"],
        ignore_default_args=["--headless=old"],
        env=dict(os.environ),
    )
    try:
        page = await context.new_page()
        await page.goto(f"{origin}/lab.html")
        yield _Tab(home, page)
    finally:
        await context.close()
        shutil.rmtree(folder, ignore_errors=True)
