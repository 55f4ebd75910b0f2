"""The `kwaainet` command. One file a subcommand, in commands/, imported when it is called."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from pyodide_node.errors import KwaaiNetError
from relay_server.sources import CONFIG_VARIABLE, sources

__all__ = ["app", "main"]

app = App(
    name="kwaainet",
    help="One script tag turns a website's visitors into an AI network they own.",
)

_NODE = {
    "start": "start:start",
    "stop": "stop:stop_node",
    "restart": "stop:restart",
    "status": "status:status",
    "logs": "logs:logs",
    "generate": "generate:generate",
    "setup": "setup:setup",
    "benchmark": "benchmark:benchmark",
    "calibrate": "calibrate:calibrate",
    "health-status": "status:health_status",
    "health-enable": "status:health_enable",
    "health-disable": "status:health_disable",
}
"""Commands that take the node's settings."""
_PLAIN = {
    "api-key": "api_key:app",
    "config": "config:config",
    "demo": "demo:demo",
    "model": "model:app",
    "monitor": "status:monitor",
    "service": "service:service",
    "update": "update:update",
}
app.command("relay_server.commands.relay:relay", config=sources("relay"))
app.command("relay_server.commands.bridge:bridge", config=sources("bridge"))
for _name, _where in _NODE.items():
    app.command(f"relay_server.commands.{_where}", name=_name, config=sources("node"))
for _name, _where in _PLAIN.items():
    app.command(f"relay_server.commands.{_where}", name=_name)


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Annotated[Path | None, Parameter(show_default=False)] = None,
) -> None:
    """Run one command.

    Parameters
    ----------
    config
        Settings file, TOML. Default: ~/.config/kwaainet/config.toml, if it is there.
    """
    if config is not None:
        os.environ[CONFIG_VARIABLE] = str(config.absolute())
    app(tokens)


def main() -> None:
    """Run the command line; a fault that a person can mend is one line, not a traceback."""
    try:
        if not set(sys.argv[1:]) - set(app.help_flags):
            for name in app:
                _ = app[name]  # imports the command: the list tells what each is for
        app.meta()
    except KwaaiNetError as error:
        print(f"kwaainet: {error}", file=sys.stderr)
        raise SystemExit(1) from None
