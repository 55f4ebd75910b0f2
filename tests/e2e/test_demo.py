"""The demo command, as a person runs it: every kind of node and path, equal to the whole model."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest


async def demo(tmp_path: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """The JSON report and what was printed."""
    report = tmp_path / "report.json"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "relay_server", "demo", "--headless", "--json", str(report), *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return json.loads(report.read_text()), printed.decode()


def check(report: dict[str, Any], *, hops: int) -> None:
    assert report["match"]
    assert report["ids"] == report["reference_ids"] != []
    assert report["hops"] == len(report["route"]) >= hops
    assert report["route"][0]["first_block"] == 0
    for before, after in zip(report["route"], report["route"][1:], strict=False):
        assert before["last_block"] == after["first_block"]
    assert report["download_bytes"] > 1_000_000
    assert report["cold_start_ms"] > 0
    assert report["ttft_ms"] > 0


@pytest.mark.parametrize("tabs", [2, 3, 4])
async def test_tabs_by_webrtc(tmp_path: Path, tabs: int) -> None:
    report, printed = await demo(tmp_path, "--tabs", str(tabs), "--path", "webrtc")
    check(report, hops=tabs)
    assert report["text"] in printed
    assert {hop["host"] for hop in report["route"]} == {"tab"}
    assert len({hop["peer"] for hop in report["route"]}) == tabs
    assert [hop["path"] for hop in report["route"]].count("webrtc") >= tabs - 1


@pytest.mark.parametrize("tabs", [2, 3])
async def test_tabs_by_the_relay(tmp_path: Path, tabs: int) -> None:
    report, _ = await demo(tmp_path, "--tabs", str(tabs), "--path", "relay")
    check(report, hops=tabs)
    assert "webrtc" not in {hop["path"] for hop in report["route"]}
    assert "relay" in {hop["path"] for hop in report["route"]}


async def test_two_tabs_on_webgpu(tmp_path: Path) -> None:
    report, _ = await demo(tmp_path, "--tabs", "2", "--engine", "webgpu", "--max-new-tokens", "12")
    check(report, hops=2)
    assert {hop["engine"] for hop in report["route"]} == {"webgpu"}


async def test_a_tab_and_a_native_node(tmp_path: Path) -> None:
    report, _ = await demo(tmp_path, "--tabs", "1", "--native", "1")
    check(report, hops=2)
    assert {hop["host"] for hop in report["route"]} == {"tab", "native"}
    remote = next(hop for hop in report["route"] if hop["host"] == "native")
    assert remote["path"] == "webrtc"


async def test_a_tab_alone_runs_the_whole_model(tmp_path: Path) -> None:
    report, _ = await demo(tmp_path, "--tabs", "1")
    check(report, hops=1)
    assert report["route"][0]["path"] == "local"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--model", "gpt-17"], "there is no model"),
        (["--tabs", "0"], "at least one tab"),
    ],
)
async def test_a_wrong_option_is_one_clear_line(arguments: list[str], complaint: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "relay_server", "demo", "--headless", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert complaint in errors.decode()
    assert "Traceback" not in errors.decode()
