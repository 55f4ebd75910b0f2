"""The settings file, changed one setting at a time: comments and order stay as they are."""

from __future__ import annotations

import os
from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError

from pyodide_node.errors import ConfigError
from relay_server.sources import Table

__all__ = ["SettingsFile", "Value"]

Value = str | int | float | bool | list[str] | None


class SettingsFile:
    """A TOML file with one table for the relay and one for the node."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def table(self, table: Table) -> dict[str, Value]:
        """What the file says. Raises ConfigError when it is no TOML."""
        found = self._read().get(table, {})
        return dict(found.unwrap()) if found else {}

    def put(self, table: Table, key: str, value: Value) -> None:
        """Set, or with None remove. Raises ConfigError when it is no TOML or cannot be written."""
        document = self._read()
        section = document.setdefault(table, tomlkit.table())
        if value is not None:
            section[key] = value
        elif key in section:
            del section[key]
        self.write(tomlkit.dumps(document))

    def write(self, text: str) -> None:
        """Replace the whole file at once. Raises ConfigError."""
        draft = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(text, encoding="utf-8")
            draft.replace(self.path)
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be written: {error.strerror}") from error

    def _read(self) -> tomlkit.TOMLDocument:
        try:
            return tomlkit.parse(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return tomlkit.document()
        except (OSError, UnicodeDecodeError, TOMLKitError) as error:
            raise ConfigError(f"{self.path} cannot be read: {error}", setting="config") from error
