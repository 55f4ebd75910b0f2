"""`kwaainet start`: this machine as a node."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from typing import Any

from rich.console import Console

from pyodide_node.control import Control
from pyodide_node.hosts.native import native_host
from relay_server.commands.node_options import NodeOptions, state_directory

__all__ = ["start"]


def start(*, model: str = "", options: NodeOptions | None = None) -> None:
    """Run a node on this machine: serve blocks of a model to everybody on the relay.

    It takes the blocks that the swarm needs most and that fit its caps. Stop it with Ctrl-C.

    Parameters
    ----------
    model
        Name of the model to serve. Default: the first that the relay offers.
    """
    asyncio.run(_start(model, options or NodeOptions()))


async def _start(model: str, options: NodeOptions) -> None:
    host = await native_host(state_directory(options.state), threads=options.threads)
    teller = _Teller()
    control = Control(host, options.config(model, frozenset({"compute"})), teller.take)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, control.stop)
    try:
        await control.run()
    finally:
        host.close()


class _Teller:
    """Prints what changed, one line each."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._last = ""

    def take(self, message: str) -> None:
        notice = json.loads(message)
        if notice["event"] == "status":
            self._status(notice["value"])
        elif notice["event"] == "failed":
            self._console.print(f"[red]{notice['value']['message']}")

    def _status(self, status: dict[str, Any]) -> None:
        relay = status["relay"]
        network = "connected" if relay["connected"] else f"no relay ({relay['error'] or 'trying'})"
        line = f"{status['state']}, {network}"
        if status["span"]:
            first, last = status["span"]
            line += f", {status['model']['name']} blocks {first}-{last} on {status['engine']}"
        line += f", {len(status['peers'])} peers, {status['served']['tokens']} tokens served"
        if line != self._last:
            self._last = line
            self._console.print(line)
