"""What stands in the lab's public place: relays, and coturn as docs/NAT.md configures it."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.lab.topology import PUBLIC

__all__ = ["ROOT", "coturn", "coturn_config", "process", "relay"]

ROOT: Final = Path(__file__).resolve().parents[2]
_PATIENCE: Final = 30.0
_GRACE: Final = 5.0

_UNTIL_OPEN: Final = """
import socket, sys, time
for _ in range(600):
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2])), 1).close()
        break
    except OSError:
        time.sleep(0.05)
else:
    sys.exit(1)
"""


@asynccontextmanager
async def process(
    *command: str | Path, namespace: str, pipes: bool = False, quiet: bool = False
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A command in a namespace, ended with the block. With `pipes` one talks to it."""
    pipe, nowhere = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    started = await asyncio.create_subprocess_exec(
        *("ip", "netns", "exec", namespace),
        *map(str, command),
        cwd=ROOT,
        limit=1 << 20,
        stdin=pipe if pipes else nowhere,
        stdout=pipe if pipes else nowhere if quiet else None,
        stderr=nowhere if quiet else None,
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.terminate()
        try:
            await asyncio.wait_for(started.wait(), _GRACE)
        except TimeoutError:
            started.kill()
            await started.wait()


@asynccontextmanager
async def relay(
    namespace: str, folder: Path, port: int, *options: str | Path
) -> AsyncIterator[str]:
    """`kwaainet relay` as a user starts it; the address that nodes dial."""
    tool = Path(sys.executable).with_name("kwaainet")
    command = (tool, "relay", "--host", PUBLIC, "--port", str(port))
    state = folder / f"relay-{port}"
    async with process(
        *command, "--state", state, *options, namespace=namespace, pipes=True
    ) as started:
        assert started.stdout is not None
        async with asyncio.timeout(_PATIENCE):
            greeting = await started.stdout.readline()
        assert greeting, "the relay did not start"
        drained = asyncio.create_task(started.stdout.read())
        try:
            yield f"ws://{PUBLIC}:{port}/mesh"
        finally:
            drained.cancel()


def coturn_config(secret: str, address: str, port: int, relay_ports: tuple[int, int]) -> str:
    """What docs/NAT.md prints, with these values in the operator's place."""
    page = (ROOT / "docs/NAT.md").read_text()
    found = re.search(r"<!-- coturn -->\n```ini\n(.*?)```", page, re.DOTALL)
    assert found is not None
    config = found[1]
    for name, value in (
        ("static-auth-secret", secret),
        ("listening-ip", address),
        ("relay-ip", address),
        ("listening-port", port),
        ("min-port", relay_ports[0]),
        ("max-port", relay_ports[1]),
    ):
        config, count = re.subn(rf"(?m)^{name}=.*$", f"{name}={value}", config)
        assert count == 1, name
    return config


@asynccontextmanager
async def coturn(namespace: str, folder: Path, secret: str) -> AsyncIterator[None]:
    """The real one, in its printed configuration."""
    tool = shutil.which("turnserver")
    assert tool is not None
    config = folder / "turnserver.conf"
    config.write_text(coturn_config(secret, PUBLIC, 3478, (49152, 65535)))
    command = (tool, "-c", config, "--pidfile", folder / "turn.pid", "-b", folder / "turn.db")
    async with process(*command, namespace=namespace, quiet=True):
        waiter = [sys.executable, "-c", _UNTIL_OPEN, PUBLIC, "3478"]
        async with process(*waiter, namespace=namespace) as waiting:
            assert await waiting.wait() == 0, "coturn did not start"
        yield
