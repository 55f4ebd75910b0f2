"""The line is measured through a real relay, and what is measured grows old."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyodide_node.hosts.native import native_host
from relay_server import Relay, RelaySettings
from relay_server.lifecycle.bandwidth import line_speed
from relay_server.lifecycle.speed import Speeds, engine_speed, line_speed_to

DAY = 86_400.0


@pytest.mark.parametrize(("cap", "least", "most"), [(64 << 20, 1e5, 1e12), (1e5, 1e3, 1e6)])
async def test_a_line_is_as_fast_as_the_relay_takes(
    tmp_path: Path, cap: float, least: float, most: float
) -> None:
    host = await native_host(tmp_path)
    try:
        async with Relay(RelaySettings(port=0, stun=False, bytes_per_second=cap)) as relay:
            rate = await line_speed(host, relay.mesh_url)
            assert rate is not None
            assert least < rate < most
    finally:
        host.close()


async def test_without_a_relay_it_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay_server.lifecycle.bandwidth._ENTER", 0.05)
    host = await native_host(tmp_path)
    try:
        assert await line_speed(host, "ws://127.0.0.1:9/mesh") is None
    finally:
        host.close()


def test_measurements_are_kept_until_they_are_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1e9
    monkeypatch.setattr("relay_server.lifecycle.speed.time.time", lambda: now)
    engine, line = engine_speed("m", "onnxruntime", 2), line_speed_to("wss://r/mesh")
    speeds = Speeds(tmp_path / "deep" / "speeds.json")
    assert speeds.find(engine) is None
    speeds.keep(engine, 10.0)
    speeds.keep(line, 20.0)
    now += 2 * DAY
    again = Speeds(tmp_path / "deep" / "speeds.json")
    assert again.find(line) is None
    found = again.find(engine)
    assert found is not None
    assert found.rate == 10.0
    now += 29 * DAY
    assert again.find(engine) is None
    (tmp_path / "deep" / "speeds.json").write_text("junk")
    assert again.find(engine) is None
