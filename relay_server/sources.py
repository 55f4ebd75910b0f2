"""Where settings come from: options first, then the environment, then one TOML file.

The file has a table for each of relay, node and bridge. It is `$KWAAINET_CONFIG`, which
`kwaainet --config FILE` sets for the process, else `kwaainet/config.toml` in the user's
configuration directory (XDG Base Directory Specification).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from cyclopts import App, ArgumentCollection
from cyclopts.config import Env, Toml

from pyodide_node.errors import ConfigError

__all__ = ["CONFIG_VARIABLE", "Table", "config_file", "env_prefix", "sources"]

CONFIG_VARIABLE: Final = "KWAAINET_CONFIG"

Table = Literal["relay", "node", "bridge"]
Source = Callable[[App, tuple[str, ...], ArgumentCollection], Any]


def config_file() -> Path:
    """The settings file; it need not exist."""
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "kwaainet" / "config.toml"


def env_prefix(table: Table) -> str:
    return f"KWAAINET_{table.upper()}_"


def sources(table: Table, *, some: bool = False) -> Sequence[Source]:
    """Where a command looks for what its options do not say. They raise ConfigError.

    `some`: the command takes only some of the table's settings.
    """

    def file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        if CONFIG_VARIABLE in os.environ and not config_file().is_file():
            raise ConfigError(f"there is no settings file {config_file()}", setting="config")
        toml = Toml(
            config_file(),
            root_keys=(table,),
            use_commands_as_keys=False,
            # One command takes only some of a node's settings; `config --set` knows them all.
            allow_unknown=some or table == "node",
        )
        toml(app, commands, arguments)

    return [Env(env_prefix(table), command=False), file]
