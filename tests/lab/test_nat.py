"""Every pair of nodes connects, whatever NATs they sit behind, with TURN and without."""

from __future__ import annotations

import asyncio
import subprocess

import pytest

from tests.lab.measuring import measure, missing
from tests.lab.places import ROOT
from tests.lab.table import Row, markdown

# All pairs find each other in one topology: about a minute on an idle machine.
pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(400)]


def direct(row: Row) -> bool:
    """Whether ICE can find a direct way: one side's mapping must hold for whoever calls."""
    kinds = {row.asker[0], row.asked[0]}
    if "udp blocked" in kinds:
        return False
    return "full cone" in kinds or kinds == {"port-restricted"}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    if reason := missing():
        pytest.skip(reason)
    subprocess.run(["node", "build/runtime/bundle.mjs"], cwd=ROOT, check=True, capture_output=True)
    return asyncio.run(measure())


def test_every_pair_connects(rows: list[Row]) -> None:
    assert len(rows) == 2 * 36
    assert [row for row in rows if row.path == "none"] == [], markdown(rows)


def test_without_turn_pairs_that_no_hole_can_be_punched_for_go_by_the_websocket(
    rows: list[Row],
) -> None:
    hard = [row for row in rows if not row.turn and not direct(row)]
    assert {row.way for row in hard} == {"WebSocket"}, markdown(rows)


def test_with_turn_they_go_by_turn_and_without_udp_over_tcp(rows: list[Row]) -> None:
    """Nine of ten at least: on a busy machine ICE may run into its deadline."""
    hard = [row for row in rows if row.turn and not direct(row)]
    turned = [row for row in hard if row.way.startswith("TURN")]
    assert len(turned) >= 0.9 * len(hard), markdown(rows)
    blocked = [row for row in turned if row.asker[0] == row.asked[0] == "udp blocked"]
    assert {row.way for row in blocked} <= {"TURN tcp"}, markdown(rows)


def test_all_others_are_direct(rows: list[Row]) -> None:
    easy = [row for row in rows if direct(row)]
    assert sum(row.way == "direct" for row in easy) >= 0.9 * len(easy), markdown(rows)
