"""The measurement: every kind of NAT and host asks every other, with TURN and without."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import shutil
import subprocess
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from playwright.async_api import async_playwright

from relay_server.demo.browsers import find_chromium
from tests.lab.members import Remote, native, tab
from tests.lab.places import ROOT, coturn, relay
from tests.lab.table import HOSTS, Row, Sort
from tests.lab.topology import KINDS, PUBLIC, Topology, lacking

__all__ = ["measure", "missing"]

_AT_ONCE: Final = 12
"""Pairs that find each other at the same time: ICE has a deadline, and machines two cores."""


def missing() -> str:
    """Why the lab cannot run on this machine; "" when it can."""
    if shutil.which("turnserver") is None:
        return "coturn is not on this machine (build/setup.sh nat installs it)"
    return lacking()


async def measure(kinds: tuple[str, ...] = KINDS) -> list[Row]:
    """All rows, in the table's order. Needs root, coturn, Chromium and dist/cdn."""
    find_chromium()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kwaainet-lab-")))
        topology = stack.enter_context(Topology(kinds * 2))
        files = ("--cdn", _files(folder))
        secret = secrets.token_hex(32)
        (folder / "turn-secret").write_text(secret)
        await stack.enter_async_context(coturn(topology.public, folder, secret))
        address = f"turn:{PUBLIC}:3478"
        turn = ("--turn-server", address, "--turn-server", f"{address}?transport=tcp")
        known = ("--turn-secret-file", folder / "turn-secret")
        relays = await asyncio.gather(
            stack.enter_async_context(relay(topology.public, folder, 8080, *files, *turn, *known)),
            stack.enter_async_context(relay(topology.public, folder, 8081, *files)),
        )
        playwright = await stack.enter_async_context(async_playwright())
        members: list[Remote] = await asyncio.gather(
            *(
                stack.enter_async_context(
                    native(home, folder)
                    if host == "native"
                    else tab(home, playwright, f"http://{PUBLIC}:8080")
                )
                for host in HOSTS
                for home in topology.homes
            )
        )
        rows = []
        for url, with_turn in zip(relays, (True, False), strict=True):
            rows += await _round(members, url, with_turn)
        return rows


async def _round(members: list[Remote], url: str, turn: bool) -> list[Row]:
    keys = await asyncio.gather(*(member.do("join", url) for member in members))
    free = asyncio.Semaphore(_AT_ONCE)
    # Each sort twice, so that it can meet its own: the first of each asks the second of others.
    sorts: dict[Sort, list[tuple[Remote, str]]] = {}
    for member, key in zip(members, keys, strict=True):
        sorts.setdefault((member.home.kind, member.host), []).append((member, key))

    async def row(asker: Sort, asked: Sort) -> Row:
        async with free:
            (one, key), (other, peer) = sorts[asker][0], sorts[asked][1]
            said = await one.do("ask", peer)
            routes = {said["route"], await other.do("route", key)} - {None}
        return Row(asker, asked, turn, said["path"], frozenset(routes), said["problem"])

    pairs = itertools.combinations_with_replacement(sorts, 2)
    rows = await asyncio.gather(*(row(*pair) for pair in pairs))
    await asyncio.gather(*(member.do("leave") for member in members))
    return list(rows)


def _files(folder: Path) -> Path:
    """The browser's files, with the lab's page beside them."""
    cdn = folder / "cdn"
    shutil.copytree(ROOT / "dist/cdn", cdn, ignore=shutil.ignore_patterns("*.br", "*.gz"))
    command = ["node", "tests/lab/bundle.mjs", str(cdn)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return cdn
