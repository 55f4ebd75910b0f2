"""Writes the table of the relay's settings into docs/RELAY.md:  python -m build.reference

The table says what `kwaainet relay --help` says: both come from `RelaySettings`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from cyclopts import App, Argument

from relay_server.commands.relay import relay
from relay_server.sources import env_prefix

__all__ = ["main", "settings_table", "with_table"]

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "RELAY.md"
_BEGIN: Final = "<!-- settings: written by `make docs` -->\n"
_END: Final = "<!-- end of settings -->\n"


def settings_table() -> str:
    """One row a setting, in the order of `RelaySettings`; Markdown."""
    rows = ["| setting | environment | default | what |", "|---|---|---|---|", *_rows()]
    return "\n".join(rows) + "\n"


def with_table(page: str) -> str:
    """`page` with the table as it should be. Raises ValueError when it has no place for it."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"the page needs the lines {_BEGIN.strip()} and {_END.strip()}")
    return f"{before}{begin}{settings_table()}{end}{after}"


def main() -> None:
    PAGE.write_text(with_table(PAGE.read_text()))


def _rows() -> Iterator[str]:
    app = App()
    app.default(relay)
    for argument in app.assemble_argument_collection(parse_docstring=True):
        if argument.children:  # the dataclass itself
            continue
        name = argument.name.removeprefix("--").replace("-", "_")
        variable = f"{env_prefix('relay')}{name.upper()}"
        what = " ".join(argument.parameter.help.split()) if argument.parameter.help else ""
        yield f"| `{name}` | `{variable}` | {_default(argument)} | {what} |"


def _default(argument: Argument) -> str:
    value: Any = argument.field_info.default
    if value is None or value == () or value == frozenset():
        return "–"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    main()
