"""A node in the background: started until it serves, stopped until it is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from pyodide_node.errors import LocalError
from relay_server.lifecycle.door import ask
from relay_server.lifecycle.journal import last_lines
from relay_server.lifecycle.lock import holder
from relay_server.lifecycle.places import Places
from relay_server.lifecycle.running import DRAIN

__all__ = ["NotRunning", "running", "spawn", "stop"]

_READY: Final = 120.0
"""Seconds to wait for a node: a large model may have to be downloaded, and that goes on after."""
_GONE: Final = DRAIN + 5.0
_LOOK_EVERY: Final = 0.05


class NotRunning(LocalError):
    """No node runs in this state directory."""


def running(places: Places) -> int:
    """The process id of the node. Raises NotRunning."""
    pid = holder(places.lock)
    if pid is None:
        raise NotRunning("no node is running; start it with `kwaainet start --daemon`")
    return pid


def spawn(places: Places, arguments: Sequence[str]) -> dict[str, Any]:
    """Run `kwaainet ARGUMENTS` in the background; what the node tells of itself once it serves.

    Raises LocalError when one runs already, when it ends, or when it does not serve in time.
    """
    pid = holder(places.lock)
    if pid is not None:
        raise LocalError(f"a node runs here already (process {pid}); see `kwaainet status`")
    places.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    command = [sys.executable, "-m", "relay_server", *arguments, "--log-file", str(places.log)]
    with places.log.open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own command line
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    deadline = time.monotonic() + _READY
    while time.monotonic() < deadline:
        code = process.poll()
        if code is not None:
            said = (last_lines(places.log, 1) or ["it said nothing"])[0]
            raise LocalError(f"the node ended: {said.removeprefix('kwaainet: ')}")
        told = _told(places)
        if told.get("node", {}).get("state") == "ready":
            return told
        time.sleep(_LOOK_EVERY)
    raise LocalError(
        f"the node (process {process.pid}) does not serve after {_READY:.0f} s and goes on trying;"
        " see `kwaainet logs`"
    )


def stop(places: Places) -> bool:
    """End the node; whether it ended in good order. Raises NotRunning."""
    pid = running(places)
    try:
        ask(places.socket, "stop")
    except LocalError:  # it does not listen any more, or not yet
        os.kill(pid, signal.SIGTERM)
    if _gone(places, _GONE):
        return True
    os.kill(pid, signal.SIGKILL)
    _gone(places, _GONE)
    return False


def _told(places: Places) -> dict[str, Any]:
    try:
        told = ask(places.socket, "process")
    except LocalError:
        return {}
    return told if isinstance(told, dict) else {}


def _gone(places: Places, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while holder(places.lock) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_EVERY)
    return True
