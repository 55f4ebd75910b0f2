"""A server in a process of its own, and what the kernel says of it."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, Popen
from tempfile import TemporaryDirectory
from typing import Final
from urllib.request import urlopen

__all__ = ["TICK", "Measured", "echo", "free_port", "relay"]

TICK: Final = 1 / os.sysconf("SC_CLK_TCK")
"""Seconds; the kernel counts CPU time in these."""

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_START: Final = 30.0
"""Seconds that a server may take to answer."""


class Measured:
    """A running server. It is killed, as by a power cut, when its block ends."""

    def __init__(self, command: list[str], port: int) -> None:
        self.port = port
        begun = time.monotonic()
        self._process = Popen(command, stdout=DEVNULL)  # noqa: S603 - our own command
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1):
                    break
            except OSError:
                if self._process.poll() is not None or time.monotonic() - begun > _START:
                    self.kill()
                    raise
            time.sleep(0.005)
        self.start_seconds = time.monotonic() - begun
        """Until it answered."""

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def cpu(self) -> float:
        """Seconds of CPU so far, in user and kernel mode."""
        fields = self._proc("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK

    @property
    def resident(self) -> int:
        """Bytes."""
        return int(self._proc("statm").split()[1]) * _PAGE

    def forget_peak(self) -> None:
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")

    @property
    def peak(self) -> int:
        """Bytes resident at most, since `forget_peak`."""
        (line,) = [one for one in self._proc("status").splitlines() if one.startswith("VmHWM")]
        return int(line.split()[1]) * 1024

    def _proc(self, name: str) -> str:
        return Path(f"/proc/{self._process.pid}/{name}").read_text()


@contextmanager
def relay(*options: str, port: int | None = None) -> Iterator[Measured]:
    """`kwaainet relay`, with its defaults but for `options`."""
    port = port or free_port()
    with TemporaryDirectory() as state:
        command = [sys.executable, "-m", "relay_server", "relay", "--port", str(port)]
        command += ["--no-stun", "--state", state, "--log-level", "error", *options]
        running = Measured(command, port)
        try:
            yield running
        finally:
            running.kill()


@contextmanager
def echo() -> Iterator[Measured]:
    """uvicorn and websockets with nothing on top: what there is to lose."""
    port = free_port()
    running = Measured([sys.executable, "-m", "build.load.echo", str(port)], port)
    try:
        yield running
    finally:
        running.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
