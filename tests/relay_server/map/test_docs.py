"""docs/MAP.md names every field that is sent, and its example works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec import Struct

from relay_server.map.document import (
    Change,
    MapDocument,
    ModelView,
    RelayView,
    Snapshot,
    SpanView,
    Totals,
)
from relay_server.map.history import Sample

PAGE = (Path(__file__).parents[3] / "docs/MAP.md").read_text()
NAMED = {
    word for quoted in re.findall(r"`([^`]+)`", PAGE) for word in re.findall(r"[a-z_]+", quoted)
}


@pytest.mark.parametrize(
    "struct", [Change, MapDocument, ModelView, RelayView, Sample, Snapshot, SpanView, Totals]
)
def test_every_field_is_described(struct: type[Struct]) -> None:
    assert set(struct.__struct_fields__) - NAMED == set()
