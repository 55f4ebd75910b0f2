"""No setting of the relay is undocumented, and no documented one is gone."""

from __future__ import annotations

import dataclasses
import re

import pytest

from build.reference import PAGE, settings_table, with_table
from relay_server.settings import RelaySettings


def test_the_page_has_the_table_as_the_settings_are_now() -> None:
    page = PAGE.read_text()
    assert with_table(page) == page, "run `make docs`"


def test_the_table_has_a_row_with_a_text_for_every_setting() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", settings_table(), re.MULTILINE))
    assert list(rows) == [field.name for field in dataclasses.fields(RelaySettings)]
    assert all(rows.values())


def test_a_page_without_a_place_for_it_is_told() -> None:
    with pytest.raises(ValueError, match="needs the lines"):
        with_table("# Running a relay\n")
