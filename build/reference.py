"""Writes the tables of settings into RELAY.md, NODE.md and BRIDGE.md:  python -m build.reference

The tables say what `kwaainet relay --help`, `start --help` and `bridge --help` say: they come from
the same dataclasses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from cyclopts import App, Argument

from relay_server.commands.bridge import bridge
from relay_server.commands.relay import relay
from relay_server.commands.start import start
from relay_server.sources import Table, env_prefix

__all__ = ["PAGES", "main", "settings_table", "with_table"]

_DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
PAGES: Final[dict[Table, Path]] = {
    "relay": _DOCS / "RELAY.md",
    "node": _DOCS / "NODE.md",
    "bridge": _DOCS / "BRIDGE.md",
}
_COMMANDS: Final[dict[Table, Callable[..., None]]] = {
    "relay": relay,
    "node": start,
    "bridge": bridge,
}
_ONE_RUN: Final = ("daemon",)
"""Options of one run that are no settings."""

_BEGIN: Final = "<!-- settings: written by `make docs` -->\n"
_END: Final = "<!-- end of settings -->\n"


def settings_table(table: Table) -> str:
    """One row a setting, in the order of the help; Markdown."""
    rows = ["| setting | environment | default | what |", "|---|---|---|---|", *_rows(table)]
    return "\n".join(rows) + "\n"


def with_table(page: str, table: Table) -> str:
    """`page` with the table as it should be. Raises ValueError when it has no place for it."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"the page needs the lines {_BEGIN.strip()} and {_END.strip()}")
    return f"{before}{begin}{settings_table(table)}{end}{after}"


def main() -> None:
    for table, page in PAGES.items():
        page.write_text(with_table(page.read_text(), table))


def _rows(table: Table) -> Iterator[str]:
    app = App()
    app.default(_COMMANDS[table])
    for argument in app.assemble_argument_collection(parse_docstring=True):
        name = argument.name.removeprefix("--").replace("-", "_")
        # The dataclass itself, and what a command passes to itself.
        if argument.children or argument.parameter.show is False or name in _ONE_RUN:
            continue
        variable = f"{env_prefix(table)}{name.upper()}"
        what = " ".join(argument.parameter.help.split()) if argument.parameter.help else ""
        yield f"| `{name}` | `{variable}` | {_default(argument)} | {what} |"


def _default(argument: Argument) -> str:
    value: Any = argument.field_info.default
    if value in (None, "", (), frozenset()):
        return "–"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    main()
