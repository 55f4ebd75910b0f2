"""A relay in the test's loop, and `kwaainet` as processes of a user who has nothing yet."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from relay_server import Relay, RelaySettings
from relay_server.lifecycle.lock import holder
from relay_server.lifecycle.places import Places
from relay_server.settings import default_models

PATIENCE = 60.0


def _interruptible() -> None:
    """As in a terminal: what a script runs in the background inherits an ignored SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass(frozen=True)
class User:
    """Runs `kwaainet` with files and settings of its own."""

    home: Path
    relay: Relay

    @property
    def places(self) -> Places:
        return Places(self.home / "state" / "kwaainet")

    @property
    def config(self) -> Path:
        return self.home / "config" / "kwaainet" / "config.toml"

    @property
    def environment(self) -> dict[str, str]:
        own = {
            "HOME": str(self.home),
            "XDG_STATE_HOME": str(self.home / "state"),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "KWAAINET_NODE_RELAY": self.relay.url,
            "COLUMNS": "200",
            "NO_COLOR": "1",
        }
        kept = {k: v for k, v in os.environ.items() if not k.startswith("KWAAINET")}
        return kept | own

    async def process(self, *arguments: str, **more: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "relay_server", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment | more,
            preexec_fn=_interruptible,
        )

    async def run(self, *arguments: str, **more: str) -> tuple[int, str, str]:
        """Exit status, output, errors."""
        process = await self.process(*arguments, **more)
        try:
            async with asyncio.timeout(PATIENCE):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()


@pytest.fixture
async def user(tmp_path: Path) -> AsyncIterator[User]:
    settings = RelaySettings(port=0, stun=False, models=default_models())
    async with Relay(settings) as relay:
        made = User(tmp_path, relay)
        yield made
        pid = holder(made.places.lock)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
