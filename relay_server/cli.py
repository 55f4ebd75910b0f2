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
app.command("relay_server.commands.relay:relay", config=sources("relay"))
app.command("relay_server.commands.start:start", config=sources("node"))
app.command("relay_server.commands.generate:generate", config=sources("node"))
app.command("relay_server.commands.demo:demo")
app.command("relay_server.commands.model:app", name="model")
app.command("relay_server.commands.api_key:app", name="api-key")


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
