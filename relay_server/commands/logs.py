"""`kwaainet logs`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pyodide_node.errors import LocalError
from relay_server.commands.node_options import state_directory
from relay_server.lifecycle.journal import end_of, follow
from relay_server.lifecycle.places import Places

__all__ = ["logs"]


def logs(
    *,
    follow_on: Annotated[bool, Parameter(name=("--follow", "-f"), negative=())] = False,
    lines: Annotated[int, Parameter(name=("--lines", "-n"))] = 50,
    state: Annotated[Path | None, Parameter(show_default=False)] = None,
) -> None:
    """Print the log of the node that runs in the background.

    Parameters
    ----------
    follow_on
        Go on with what is written from now on, until Ctrl-C.
    lines
        So many of the last lines first.
    state
        The node's directory. Default: ~/.local/state/kwaainet.
    """
    path = Places(state_directory(state)).log
    if not path.exists() and not follow_on:
        raise LocalError(f"there is no log at {path}; `kwaainet start --daemon` writes one")
    last, end = end_of(path, lines)
    for line in last:
        print(line, flush=True)
    if follow_on:
        with contextlib.suppress(KeyboardInterrupt):
            for line in follow(path, end):
                print(line, flush=True)
