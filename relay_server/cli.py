"""The `kwaainet` command. One file a subcommand, in commands/."""

from __future__ import annotations

import sys

from cyclopts import App

from pyodide_node.errors import KwaaiNetError
from relay_server.commands.demo import demo
from relay_server.commands.generate import generate
from relay_server.commands.relay import relay
from relay_server.commands.start import start

__all__ = ["app", "main"]

app = App(
    name="kwaainet",
    help="One script tag turns a website's visitors into an AI network they own.",
)
app.command(demo)
app.command(relay)
app.command(start)
app.command(generate)


def main() -> None:
    """Run the command line; a fault that a person can mend is one line, not a traceback."""
    try:
        app()
    except KwaaiNetError as error:
        print(f"kwaainet: {error}", file=sys.stderr)
        raise SystemExit(1) from None
