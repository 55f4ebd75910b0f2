"""`kwaainet api-key`: who may ask through this relay's API, and how much."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from relay_server.api.keys import ApiKeys
from relay_server.commands.node_options import relay_state
from relay_server.sources import sources
from relay_server.state import State

__all__ = ["app"]

app = App(
    name="api-key",
    help="Keys for the relay's API: add, list and revoke them.",
    config=sources("relay", some=True),  # they lie where the relay's settings say
)

StateDirectory = Annotated[Path | None, Parameter(show_default=False)]
DatabaseUrl = Annotated[str, Parameter(show_default=False)]


@app.command
def add(
    name: str,
    *,
    tokens_per_day: int | None = None,
    requests_per_minute: int | None = None,
    state: StateDirectory = None,
    database: DatabaseUrl = "",
) -> None:
    """Make a key and print it. It is stored as a hash: nobody can show it again.

    A relay that runs takes it at once.

    Parameters
    ----------
    name
        Whose it is, in your words; one key in use may have it.
    tokens_per_day
        Tokens of prompts and answers together, each day of UTC. Default: no limit.
    requests_per_minute
        Requests; a minute's may come at once. Default: no limit.
    state
        The relay's --state.
    database
        The relay's --database.
    """
    with State(relay_state(state), database=database) as opened:
        key = ApiKeys(opened).add(
            name, tokens_per_day=tokens_per_day, requests_per_minute=requests_per_minute
        )
    Console(stderr=True, highlight=False).print("Keep it safe; it is not shown again.")
    print(key)


@app.command(name="list")
def list_keys(*, state: StateDirectory = None, database: DatabaseUrl = "") -> None:
    """Show every key's name, quotas and what it used today; never the key itself.

    Parameters
    ----------
    state
        The relay's --state.
    database
        The relay's --database.
    """
    with State(relay_state(state), database=database) as opened:
        keys = ApiKeys(opened).list()
    table = Table("name", "id", "made", "tokens today", "requests today", "a minute", "state")
    table.columns[1].no_wrap = True  # to be copied
    for key, used in keys:
        table.add_row(
            key.name,
            key.id,
            _date(key.created),
            f"{used.prompt_tokens + used.completion_tokens} of {_quota(key.tokens_per_day)}",
            str(used.requests),
            _quota(key.requests_per_minute),
            "in use" if key.revoked is None else f"revoked {_date(key.revoked)}",
        )
    Console(highlight=False).print(table)


@app.command
def revoke(name: str, *, state: StateDirectory = None, database: DatabaseUrl = "") -> None:
    """Refuse a key from its next request on.

    Parameters
    ----------
    name
        The key's name or id.
    state
        The relay's --state.
    database
        The relay's --database.
    """
    with State(relay_state(state), database=database) as opened:
        key = ApiKeys(opened).revoke(name)
    print(f"revoked {key.name} ({key.id})")


def _quota(value: int | None) -> str:
    return "any" if value is None else str(value)


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).date().isoformat()
