"""The table says by which way an answer came."""

from __future__ import annotations

import itertools

import pytest

from tests.lab.places import ROOT
from tests.lab.table import HOSTS, Row, Sort, markdown
from tests.lab.topology import KINDS

TAB: Sort = ("symmetric", "Chromium")


@pytest.mark.parametrize(
    ("path", "routes", "way"),
    [
        ("webrtc", {"direct"}, "direct"),
        ("webrtc", {"turn", "turn-tcp"}, "TURN tcp"),
        ("webrtc", {"turn-udp", "turn-tcp"}, "TURN tcp+udp"),
        ("relay", set(), "WebSocket"),
        ("none", set(), "**none**"),
    ],
)
def test_a_way_is_what_both_ends_know_of_it(path: str, routes: set[str], way: str) -> None:
    assert Row(TAB, TAB, True, path, frozenset(routes)).way == way


def test_each_pair_of_sorts_has_its_cell() -> None:
    sorts: list[Sort] = [(kind, host) for host in HOSTS for kind in KINDS]
    rows = [
        Row(*pair, turn, "webrtc", frozenset({"direct"}))
        for pair in itertools.combinations_with_replacement(sorts, 2)
        for turn in (True, False)
    ]
    lines = markdown(rows).splitlines()
    assert len([line for line in lines if line.count("| direct") == 4]) == 20


def test_the_page_has_the_whole_table() -> None:
    page = (ROOT / "docs/NAT.md").read_text()
    _, _, table = page.partition("<!-- table -->")
    table, end, _ = table.partition("<!-- end of table -->")
    assert end
    assert table.count(" – ") == 20 + 2 * 4
    assert "none" not in table
