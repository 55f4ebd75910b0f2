"""The load script runs, counts what it claims to count, and leaves nothing behind."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from subprocess import run

import pytest

from build.load.client import source
from build.load.forwarding import quantile


def test_clients_come_from_as_many_addresses_as_a_relay_asks_for() -> None:
    assert [source(number) for number in (0, 399, 400)] == ["127.0.1.1", "127.0.1.1", "127.0.1.2"]


def test_quantiles() -> None:
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile(list(map(float, range(100))), 0.99) == 99.0


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it reads /proc")
def test_a_small_run(tmp_path: Path) -> None:
    found = tmp_path / "load.json"
    options = ["--connections", "40", "--frames", "1280", "--clients", "20", "--seconds", "1"]
    for name in ("idle", "forwarding", "rejoin", "noise"):
        options += ["--only", name]
    command = [sys.executable, "-m", "build.load", "--json", str(found), *options]
    done = run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    report = json.loads(found.read_text())
    rows = {row["what"]: row["value"] for row in report["rows"]}
    assert rows["joins, each with its key"] > 1
    assert rows["4 KB forwarded, streams"] > 0.1
    assert rows["20 nodes back"] > 0
    (attack,) = report["attacks"]
    assert attack["name"] == "noise"
    assert attack["peak"] >= attack["before"]
