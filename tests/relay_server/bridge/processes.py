"""Peers of real hivemind and our own bridge, each in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

__all__ = ["BridgeProcess", "HivemindPeer", "hivemind_peers"]

_ROOT = Path(__file__).resolve().parents[3]
_PYTHON = _ROOT / ".venv-hivemind/bin/python"
_PEER = Path(__file__).with_name("hivemind_peer.py")
_PATIENCE = 60.0
"""Seconds for one line: importing hivemind takes most of them on a busy machine."""


class _Lines:
    """A process that is spoken to in lines. It and its children end with the block."""

    def __init__(self, command: Sequence[str | Path], **environment: str) -> None:
        self._process = subprocess.Popen(
            list(map(str, command)),
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | environment,
            start_new_session=True,
        )
        self._read = b""

    def line(self) -> str:
        """The next line of output. Raises TimeoutError, EOFError."""
        out = self._process.stdout
        assert out is not None
        while b"\n" not in self._read:
            if not select.select([out], [], [], _PATIENCE)[0]:
                raise TimeoutError(f"no line of {self._process.args!r}; so far {self._read!r}")
            data = os.read(out.fileno(), 65536)
            if not data:
                raise EOFError(f"{self._process.args!r} ended; {self._read!r}")
            self._read += data
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def signal(self, number: int) -> int:
        """End by a signal; the exit status."""
        self._process.send_signal(number)
        return self._process.wait(_PATIENCE)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()


class HivemindPeer(_Lines):
    """See hivemind_peer.py."""

    def __init__(self) -> None:
        if not _PYTHON.exists():
            pytest.skip("hivemind is not installed: build/setup.sh hivemind")
        super().__init__([_PYTHON, _PEER], OMP_NUM_THREADS="1")
        self.addresses: list[str] = []
        self.peer = ""

    def join(self, *first: HivemindPeer) -> None:
        """Enter the DHT of `first`."""
        self.say(json.dumps([address for peer in first for address in peer.addresses]))
        told = json.loads(self.line())
        self.addresses, self.peer = told["addresses"], told["peer"]

    def ask(self, verb: str, *arguments: Any) -> Any:
        self.say(json.dumps([verb, *arguments]))
        return json.loads(self.line())["answer"]


@contextlib.contextmanager
def hivemind_peers(count: int) -> Iterator[list[HivemindPeer]]:
    """A DHT of so many peers of hivemind."""
    with contextlib.ExitStack() as stack:
        peers = []
        for _ in range(count):  # they import all at once
            peers.append(HivemindPeer())
            stack.callback(peers[-1].close)
        for number, peer in enumerate(peers):
            peer.join(*peers[:number][:1])
        yield peers


class BridgeProcess(_Lines):
    """`kwaainet bridge`, looking at the map every second."""

    def __init__(self, relay: str, first: HivemindPeer, state: Path, *options: str) -> None:
        command = [sys.executable, "-m", "relay_server", "bridge", "--relay", relay]
        command += ["--bootstrap", first.addresses[0], "--port", "0", "--state", str(state)]
        super().__init__([*command, "--look-every", "1", *options])
        self.peer = self.line().split()[-1]

    def until(self, word: str) -> str:
        """The next line of output with `word` in it."""
        while word not in (line := self.line()):
            pass
        return line
