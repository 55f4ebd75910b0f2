"""`kwaainet stop` and `kwaainet restart`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from pyodide_node.errors import LocalError
from relay_server.commands.node_options import state_directory
from relay_server.lifecycle.daemon import NotRunning, running, spawn, stop
from relay_server.lifecycle.door import ask
from relay_server.lifecycle.places import Places

__all__ = ["restart", "stop_node"]

State = Annotated[Path | None, Parameter(show_default=False)]


def stop_node(*, state: State = None) -> None:
    """Stop the node; answers under way get ten seconds to end.

    Parameters
    ----------
    state
        The node's directory. Default: ~/.local/state/kwaainet.
    """
    console = Console(highlight=False, emoji=False)
    if stop(Places(state_directory(state))):
        console.print("The node has stopped.")
    else:
        console.print("The node did not end by itself and was killed.")


def restart(*, state: State = None) -> None:
    """Stop the node and start it in the background, as it was started, with today's settings.

    Parameters
    ----------
    state
        The node's directory. Default: ~/.local/state/kwaainet.
    """
    places = Places(state_directory(state))
    arguments = ["start", *(("--state", str(state)) if state else ())]
    try:
        running(places)
        arguments = _without_log_file(ask(places.socket, "process")["arguments"])
        stop(places)
    except NotRunning:
        pass
    except LocalError:
        stop(places)
    told = spawn(places, arguments)
    Console(highlight=False, emoji=False).print(f"The node runs again, process {told['pid']}.")


def _without_log_file(arguments: list[str]) -> list[str]:
    if "--log-file" in arguments:
        at = arguments.index("--log-file")
        return arguments[:at] + arguments[at + 2 :]
    return arguments
