"""One line of the table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

__all__ = ["Row", "as_json", "table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`value` is judged against `budget`: at most, or at least where `least` is set."""

    what: str
    value: float
    unit: str
    budget: float | None = None
    least: bool = False
    note: str = ""

    @property
    def within(self) -> bool | None:
        if self.budget is None:
            return None
        return self.value >= self.budget if self.least else self.value <= self.budget


def table(rows: list[Row], title: str = "KwaaiNet bench") -> Table:
    shown = Table(title=title, title_justify="left")
    for column in ("what", "measured", "budget", "", "how"):
        shown.add_column(column, justify="right" if column in ("measured", "budget") else "left")
    for row in rows:
        budget = "" if row.budget is None else f"{'≥' if row.least else '≤'} {row.budget:g}"
        mark = {None: "", True: "[green]ok", False: "[red]over"}[row.within]
        shown.add_row(row.what, f"{row.value:.3g} {row.unit}", budget, mark, row.note)
    return shown


def as_json(rows: list[Row]) -> list[dict[str, Any]]:
    return [asdict(row) | {"within": row.within} for row in rows]
