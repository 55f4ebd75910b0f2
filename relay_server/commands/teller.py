"""Says what changes in a node: on the terminal, and in its log."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from relay_server.lifecycle.journal import LOG

__all__ = ["Teller"]


class Teller:
    """One line for each change; `quiet` says it in the log alone."""

    def __init__(self, *, quiet: bool) -> None:
        self._console = Console(highlight=False, emoji=False, quiet=quiet)
        self._last = ""

    def say(self, line: str) -> None:
        LOG.info("%s", line)
        self._console.print(line, markup=False)

    def hear(self, notice: dict[str, Any]) -> None:
        """A notice of `pyodide_node.control`; failures end the command, which tells them."""
        if notice["event"] != "status":
            return
        status = notice["value"]
        relay = status["relay"]
        network = "connected" if relay["connected"] else f"no relay ({relay['error'] or 'trying'})"
        line = f"{status['state']}, {network}"
        if status["span"]:
            first, last = status["span"]
            line += f", {status['model']['name']} blocks {first}-{last} on {status['engine']}"
        line += f", {len(status['peers'])} peers, {status['served']['tokens']} tokens served"
        if line != self._last:
            self._last = line
            self.say(line)
