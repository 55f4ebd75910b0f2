"""`kwaainet config`: look at the node's settings, change one."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console
from rich.table import Table

from pyodide_node.errors import ConfigError
from relay_server.commands.node_options import NodeOptions
from relay_server.commands.start import start
from relay_server.settings_file import SettingsFile, Value
from relay_server.sources import config_file, env_prefix, sources

__all__ = ["config", "node_settings"]

_WIDE = 200
"""Columns: a path that is cut is of no use."""


def config(
    *,
    view: Annotated[bool, Parameter(negative=())] = False,
    change: Annotated[tuple[str, str] | None, Parameter(name="--set", show_default=False)] = None,
    json_form: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Show the settings of `kwaainet start`, or set one in the settings file.

    Parameters
    ----------
    view
        Show every setting, its value and where that comes from: what happens without --set too.
    change
        KEY VALUE: write one to the settings file; an empty value takes it out again. A node that
        runs takes it up with `kwaainet restart`.
    json_form
        As JSON, for scripts.
    """
    file = SettingsFile(config_file())
    if change is not None:
        key = _known(change[0])
        value = _checked(key, change[1]) if change[1] else None
        file.put("node", key, value)
        Console(highlight=False, emoji=False).print(
            f"{key} is {_text(value)}, in {file.path}", markup=False
        )
        return
    rows = node_settings(file)
    if json_form:
        print(json.dumps(rows, indent=2, default=str))
        return
    table = Table("setting", "value", "from", box=None, padding=(0, 2, 0, 0))
    for key, row in rows.items():
        table.add_row(key, _text(row["value"]), row["from"])
    Console(highlight=False, emoji=False, width=_WIDE).print(table)


def node_settings(file: SettingsFile) -> dict[str, dict[str, Any]]:
    """Each setting of `kwaainet start` as it would be now. Raises ConfigError."""
    app = App(config=sources("node"))
    app.default(start)
    values = _parsed(app, [])
    written = file.table("node")
    rows = {}
    for key, value in values.items():
        variable = f"{env_prefix('node')}{key.upper()}"
        origin = "default"
        if variable in os.environ:
            origin = f"${variable}"
        elif key in written:
            origin = str(file.path)
        rows[key] = {"value": value, "from": origin}
    return rows


def _known(key: str) -> str:
    """`max-blocks` and `max_blocks` are one. Raises ConfigError."""
    key = key.removeprefix("--").replace("-", "_")
    known = _parsed(_start(), [])
    if key == "blocks":  # as other tools of this network have it
        key = "max_blocks"
    if key not in known:
        raise ConfigError(f"{key!r} is no setting; there are: {', '.join(known)}", setting=key)
    return key


def _checked(key: str, value: str) -> Value:
    """The value as TOML has it, a list of its words where the option may be repeated.

    Raises ConfigError when the option would not take it.
    """
    several = isinstance(_parsed(_start(), [])[key], tuple)
    option = f"--{key.replace('_', '-')}"
    words = value.split() if several else [value]
    found = _parsed(_start(), [f"{option}={word}" for word in words])[key]
    if isinstance(found, tuple):
        return list(found)
    return str(found) if isinstance(found, Path) else found


def _start() -> App:
    app = App()
    app.default(start)
    return app


def _parsed(app: App, arguments: list[str]) -> dict[str, Any]:
    """The settings of `start` by name; those that are of one run only are left out."""
    try:
        _, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise ConfigError(" ".join(str(error).split()), setting="config") from None
    given = bound.arguments
    options = given.get("options") or NodeOptions()
    options.config("", frozenset())  # raises ConfigError
    own = {"model": given.get("model", ""), "health": given.get("health", False)}
    return own | {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}


def _text(value: object) -> str:
    return "not set" if value is None else str(value)
