"""`python -m build.load`: load a relay on the loopback, print a table, write dist/load.json.

Servers run in processes of their own and are judged by the CPU time that they take, so that other
work on the machine matters little; times of the clock do suffer from it. uvicorn with a bare echo
runs on the same machine in the same minutes, to compare with.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import uvloop
from rich.console import Console
from rich.status import Status
from rich.table import Table

from build.bench.row import Row, as_json, table
from build.load.attacker import ATTACKS
from build.load.attacks import Attacked, attacked
from build.load.forwarding import carry, echo_flow, latency, relay_flow
from build.load.process import echo, relay
from build.load.swarm import idle_echo, join, rejoin
from relay_server.open_files import raise_open_files

ROOT = Path(__file__).parents[2]
_UNLIMITED = [
    f"--{kind}-per-{whom}={1e12 if kind == 'bytes' else 1e9:.0f}"
    for kind in ("messages", "bytes")
    for whom in ("second", "address")
]
"""Options for a relay whose own speed is measured, and not its limits."""
_KB, _MB = 1e3, 1e6


async def idle_rows(connections: int) -> list[Row]:
    with echo() as server:
        bare = await idle_echo(server, connections)
    with relay("--idle-timeout=3600", "--ping-after=3600") as server:  # they answer no pings
        joined = await join(server, connections)
        start = server.start_seconds
    note = f"{connections} from 127.0.1.0/24; {joined.bytes_each / bare.bytes_each:.2f}x bare"
    speed = f"{joined.per_core_second:.0f} a core-second; bare upgrades {bare.per_second:.0f} /s"
    return [
        Row(what="idle node", value=joined.bytes_each / _KB, unit="KB", budget=40, note=note),
        Row(what="joins, each with its key", value=joined.per_second, unit="/s", note=speed),
        Row(what="start to first answer", value=start, unit="s"),
    ]


async def forwarding_rows(frames: int, seconds: float) -> list[Row]:
    rows = []
    for what, together, share in (("streams", 16, 1), ("one at a time", 1, 4)):
        with echo() as server:
            flows = [await echo_flow(server, together) for _ in range(4)]
            bare, _ = await carry(server, flows, frames // share)
        with relay(*_UNLIMITED) as server:
            flows = [await relay_flow(server, together) for _ in range(4)]
            per_core, per_clock = await carry(server, flows, frames // share)
        rows.append(
            Row(
                what=f"4 KB forwarded, {what}",
                value=per_core / 1e3,
                unit="k/core-second",
                budget=20 if together > 1 else None,
                least=True,
                note=f"{per_core / bare:.2f}x a bare echo's {bare / 1e3:.0f}k",
            )
        )
        if together == 1:
            half = min(per_core, per_clock) / 2  # of what this machine gives just now
    with echo() as server:
        nothing = await latency(server, await echo_flow(server, 1), [], 1, seconds)
    with relay(*_UNLIMITED) as server:
        probe, load = await relay_flow(server, 1), [await relay_flow(server, 4) for _ in range(4)]
        busy = await latency(server, probe, load, half, seconds)
    note = f"{busy.per_second / 1e3:.1f}k frames/s, {busy.cpu_share:.2f} of a core"
    for name in ("p50", "p99"):
        quiet = getattr(nothing, name)
        rows.append(
            Row(
                what=f"added at half load, {name}",
                value=(getattr(busy, name) - quiet) * 1e3,
                unit="ms",
                note=f"{note}; over an idle bare echo's {quiet * 1e3:.2f} ms",
            )
        )
    return rows


async def rejoin_rows(clients: int) -> list[Row]:
    back = await rejoin(clients)
    note = f"half after {back.half:.1f} s; {back.refused} tries refused"
    return [
        Row(what="kill -9 to first answer", value=back.restart, unit="s"),
        Row(what=f"{clients} nodes back", value=back.all, unit="s", note=note),
        Row(
            what="of them, in the worst 0.1 s",
            value=back.most_in_100_ms,
            unit="nodes",
            note=f"{back.peak / _MB:.0f} MB resident at most",
        ),
    ]


def attack_table(seen: list[Attacked]) -> Table:
    """Times in ms: of an honest node's packets, and of honest nodes that enter."""
    shown = Table(title="The same under attack", title_justify="left")
    shown.add_column("by")
    for column in (
        "MB before",
        "at most",
        "after",
        "cores",
        "quiet p99",
        "p50",
        "p99",
        "joins p99",
    ):
        shown.add_column(column, justify="right")
    for one in seen:
        sizes = [f"{size / _MB:.0f}" for size in (one.before, one.peak, one.after)]
        times = [f"{t * 1e3:.1f}" for t in (one.quiet_p99, one.p50, one.p99, one.join_p99)]
        shown.add_row(one.name, *sizes, f"{one.cpu_share:.2f}", *times)
    return shown


def measure(options: argparse.Namespace, status: Status) -> Iterator[Row | Attacked]:
    def chosen(name: str) -> bool:
        status.update(name)
        return not options.only or name in options.only

    if chosen("idle"):
        yield from uvloop.run(idle_rows(options.connections))
    if chosen("forwarding"):
        yield from uvloop.run(forwarding_rows(options.frames, options.seconds))
    if chosen("rejoin"):
        yield from uvloop.run(rejoin_rows(options.clients))
    for name in ATTACKS:
        if chosen(name) or "attacks" in options.only:
            yield uvloop.run(attacked(name, options.seconds))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m build.load",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--connections", type=int, default=10_000, help="idle nodes")
    parser.add_argument("--frames", type=int, default=100_000, help="packets to forward")
    parser.add_argument("--clients", type=int, default=2_000, help="nodes that come back")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each attack, and of load")
    parser.add_argument(
        "--only",
        action="append",
        choices=["idle", "forwarding", "rejoin", "attacks", *ATTACKS],
        default=[],
        help="these rows only; may be repeated",
    )
    parser.add_argument("--json", type=Path, default=ROOT / "dist/load.json", metavar="FILE")
    options = parser.parse_args()
    files = raise_open_files()
    # Each connection has an end here and one in the relay.
    options.connections = min(options.connections, files - 1000)
    console = Console()
    with console.status("") as status:
        measured = list(measure(options, status))
    rows = [one for one in measured if isinstance(one, Row)]
    seen = [one for one in measured if isinstance(one, Attacked)]
    if rows:
        console.print(table(rows, "A relay under load"))
    if seen:
        console.print(attack_table(seen))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    found = {"rows": as_json(rows), "attacks": [asdict(one) for one in seen]}
    options.json.write_text(json.dumps(found, indent=2) + "\n")
    console.print(f"[dim]also in {options.json}")


if __name__ == "__main__":
    main()
