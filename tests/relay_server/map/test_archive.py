"""The history is there again after a restart, and a broken file does not stop a relay."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_server import Relay, RelaySettings
from relay_server.map.archive import Archive
from relay_server.map.history import EVERY, LENGTH, Sample
from relay_server.state import FILE
from tests.relay_server.client import PATIENCE
from tests.relay_server.http import get

NOW = 1_790_000_000
numbers = st.integers(0, 2**53)
samples = st.builds(
    Sample, st.just(NOW), numbers, numbers, numbers, numbers, st.floats(0, 1e15), numbers,
    numbers, numbers,
)  # fmt: skip


def sample(time: int) -> Sample:
    return Sample(time, 3, 1, 8, 8, 12.5, 2, 40, 4096)


@settings(max_examples=10)
@given(samples)
def test_what_is_kept_is_read(tmp_path_factory: pytest.TempPathFactory, kept: Sample) -> None:
    archive = Archive(tmp_path_factory.mktemp("state"))
    try:
        archive.keep(kept)
        assert archive.read(NOW) == [kept]
    finally:
        archive.close()


def test_only_a_day_is_kept(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    try:
        for minute in range(0, 2 * LENGTH, 60):
            archive.keep(sample(NOW + EVERY * minute))
        end = NOW + EVERY * (2 * LENGTH - 60)
        assert len(archive.read(0)) == len(archive.read(end)) == LENGTH / 60
        archive.keep(sample(end))  # twice in one minute: another relay of this machine
        assert len(archive.read(end)) == LENGTH / 60
    finally:
        archive.close()


async def shown(relay: Relay, samples: int) -> dict[str, list[float]]:
    async with asyncio.timeout(PATIENCE):
        while len(relay.map.history) < samples:  # noqa: ASYNC110 - read in a thread
            await asyncio.sleep(0)
    past: dict[str, list[float]] = json.loads((await get(relay.url, "/map/history.json")).body)
    return past


async def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    options = RelaySettings(port=0, stun=False, state=tmp_path)
    async with Relay(options) as relay:
        now = int(relay.map.remember().time)
    archive = Archive(tmp_path)
    for minutes in (3, 2, 1):
        archive.keep(sample(now - 60 * minutes))
    archive.close()
    async with Relay(options) as relay:
        past = await shown(relay, 3)
        relay.map.remember()
        more = await shown(relay, 4)
    assert past["time"] == [now - 180, now - 120, now - 60]
    assert more["time"][:3] == past["time"]
    assert len(more["nodes"]) == 4


async def test_a_broken_file_is_said_and_the_map_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).write_bytes(b"this is no database" * 100)
    async with Relay(RelaySettings(port=0, stun=False, state=tmp_path)) as relay:
        assert (await get(relay.url, "/map.json")).status == 200
        async with asyncio.timeout(PATIENCE):
            while "state_failed" not in caplog.text:  # noqa: ASYNC110 - said by a thread
                await asyncio.sleep(0)
        relay.map.remember()
        assert len(await shown(relay, 1)) == len(Sample.__struct_fields__)


async def test_a_relay_that_stops_at_once_leaves_nothing_open(tmp_path: Path) -> None:
    async with Relay(RelaySettings(port=0, stun=False, state=tmp_path)):
        pass
