"""No setting is undocumented, and no documented one is gone."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from build.reference import PAGES, settings_table, with_table
from relay_server.bridge.settings import BridgeSettings
from relay_server.commands.node_options import NodeOptions
from relay_server.settings import RelaySettings
from relay_server.sources import Table

TABLES: list[tuple[Table, Any, list[str]]] = [
    ("relay", RelaySettings, []),
    ("node", NodeOptions, ["model", "health"]),
    ("bridge", BridgeSettings, []),
]


@pytest.mark.parametrize("table", ["relay", "node", "bridge"])
def test_the_page_has_the_table_as_the_settings_are_now(table: Table) -> None:
    page = PAGES[table].read_text()
    assert with_table(page, table) == page, "run `make docs`"


@pytest.mark.parametrize(("table", "settings", "own"), TABLES)
def test_the_table_has_a_row_with_a_text_for_every_setting(
    table: Table, settings: Any, own: list[str]
) -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", settings_table(table), re.MULTILINE))
    assert list(rows) == own + [field.name for field in dataclasses.fields(settings)]
    assert all(rows.values())


def test_a_page_without_a_place_for_it_is_told() -> None:
    with pytest.raises(ValueError, match="needs the lines"):
        with_table("# Running a relay\n", "relay")
