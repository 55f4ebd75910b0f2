"""Data channel or relay: the faster one for a message of that size, within the policy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyodide_node.mesh.paths import Path, PathChooser, PathPolicy

SMALL, LARGE = 4096, 1_000_000

rtts = st.floats(0, 2)


def chooser(
    *, webrtc: float | None = None, relay: float | None = None, policy: PathPolicy = "auto"
) -> PathChooser:
    made = PathChooser(policy)
    if webrtc is not None:
        made.measured("webrtc", webrtc)
    if relay is not None:
        made.measured("relay", relay)
    return made


@pytest.mark.parametrize(
    ("policy", "channel", "relay", "path"),
    [
        ("auto", True, True, "webrtc"),
        ("auto", True, False, "webrtc"),
        ("auto", False, True, "relay"),
        ("auto", False, False, None),
        ("webrtc", True, True, "webrtc"),
        ("webrtc", False, True, None),
        ("relay", True, True, "relay"),
        ("relay", True, False, None),
    ],
)
def test_only_open_paths_that_the_policy_allows_are_chosen(
    policy: PathPolicy, channel: bool, relay: bool, path: Path | None
) -> None:
    assert chooser(policy=policy).choose(SMALL, channel=channel, relay=relay) == path


@given(webrtc=rtts, relay=rtts, size=st.integers(0, 4_000_000))
def test_the_path_chosen_is_the_one_expected_to_be_faster(
    webrtc: float, relay: float, size: int
) -> None:
    made = chooser(webrtc=webrtc, relay=relay)
    path = made.choose(size, channel=True, relay=True)
    assert path is not None
    assert made.expected(path, size) == min(
        made.expected("webrtc", size), made.expected("relay", size)
    )


def test_a_large_message_takes_the_relay_where_the_channel_s_window_is_the_limit() -> None:
    made = chooser(webrtc=0.100, relay=0.150)
    assert made.choose(SMALL, channel=True, relay=True) == "webrtc"
    assert made.choose(LARGE, channel=True, relay=True) == "relay"


def test_the_relay_is_spared_when_it_is_not_clearly_faster() -> None:
    assert chooser(webrtc=0.1, relay=0.1).choose(0, channel=True, relay=True) == "webrtc"
    assert chooser(webrtc=0.1, relay=0.07).choose(0, channel=True, relay=True) == "relay"


@given(path=st.sampled_from(["webrtc", "relay"]), first=rtts, then=rtts)
def test_measurements_are_smoothed_but_followed(path: Path, first: float, then: float) -> None:
    made = PathChooser("auto")
    assert made.rtt(path) is None
    made.measured(path, first)
    assert made.rtt(path) == first
    made.measured(path, then)
    low, high = sorted((first, then))
    rtt = made.rtt(path)
    assert rtt is not None
    assert low - 1e-9 <= rtt <= high + 1e-9
    for _ in range(40):
        made.measured(path, then)
    assert made.rtt(path) == pytest.approx(then, abs=1e-3)


def test_a_lost_path_is_measured_anew() -> None:
    made = chooser(webrtc=1.5)
    made.forget("webrtc")
    made.forget("webrtc")
    assert made.rtt("webrtc") is None
    made.measured("webrtc", 0.02)
    assert made.rtt("webrtc") == 0.02


def test_this_node_itself_is_at_no_distance() -> None:
    assert PathChooser("auto").expected("local", SMALL) < 1e-6
