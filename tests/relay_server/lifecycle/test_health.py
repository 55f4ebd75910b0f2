"""A node is well while it is in touch and serves; watched, a long illness ends it."""

from __future__ import annotations

from typing import Any

import pytest

from relay_server.lifecycle.health import UNWELL_LONG, Health

WELL: dict[str, Any] = {
    "state": "ready",
    "relay": {"connected": True, "error": ""},
    "span": [0, 4],
    "problem": "",
}


def test_a_node_in_touch_that_serves_is_well() -> None:
    health = Health()
    assert not health.well
    assert health.look(WELL, 10.0) == ""
    assert health.well
    health.look(WELL, 25.0)
    assert health.told() == {"well": True, "problems": [], "seconds": 15.0, "watching": False}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"state": "loading"}, "the node is loading"),
        ({"relay": {"connected": False, "error": "refused"}}, "no relay: refused"),
        ({"relay": {"connected": False, "error": ""}}, "no relay: trying"),
        ({"span": None, "problem": "a full cap"}, "a full cap"),
        ({"span": None}, "no blocks are served"),
    ],
)
def test_what_is_wrong_is_told(change: dict[str, Any], problem: str) -> None:
    health = Health()
    health.look(WELL | change, 1.0)
    assert health.told()["problems"] == [problem]


def test_only_a_long_illness_of_a_watched_node_ends_it() -> None:
    ill = WELL | {"span": None}
    for watching in (False, True):
        health = Health(watching=watching)
        health.look(WELL, 100.0)
        assert health.look(ill, 200.0) == ""
        assert health.look(ill, 200.0 + UNWELL_LONG) == ""
        why = health.look(ill, 201.0 + UNWELL_LONG)
        assert why == ("unwell for 301 s: no blocks are served" if watching else "")


def test_an_illness_begins_anew_after_a_well_moment() -> None:
    health = Health(watching=True)
    for start in (0.0, 250.0, 500.0):
        assert health.look(WELL | {"state": "loading"}, start + 1) == ""
        assert health.look(WELL, start + 249) == ""
