"""`kwaainet status`, `health-…` and `monitor …`: what the running node tells of itself."""

from __future__ import annotations

import json
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import psutil
from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from pyodide_node.errors import LocalError
from relay_server.commands.node_options import state_directory
from relay_server.lifecycle.daemon import running
from relay_server.lifecycle.door import ask
from relay_server.lifecycle.places import Places
from relay_server.settings_file import SettingsFile
from relay_server.sources import config_file

__all__ = ["health_disable", "health_enable", "health_status", "monitor", "status"]

State = Annotated[Path | None, Parameter(show_default=False)]
Json = Annotated[bool, Parameter(name="--json", negative=())]

_CPU_WINDOW = 0.3
"""Seconds over which the share of the processor is measured."""

monitor = App(
    name="monitor", help="Connections of the running node: numbers, and what is wrong with them."
)


def status(*, json_form: Json = False, state: State = None) -> None:
    """Tell what the node does: process, processor, memory, blocks, peers, tokens served.

    Exits with 1 when no node runs.

    Parameters
    ----------
    json_form
        As JSON, for scripts.
    state
        The node's directory. Default: ~/.local/state/kwaainet.
    """
    told = _told(state)
    process = psutil.Process(told["pid"])
    told["cpu_percent"] = process.cpu_percent(_CPU_WINDOW)
    told["memory_mb"] = round(process.memory_info().rss / 1e6, 1)
    told["uptime_s"] = round(time.time() - told["began"], 1)
    if json_form:
        _print_json(told)
        return
    _print_rows(_rows(told))


def _rows(told: dict[str, Any]) -> dict[str, str]:
    node, health = told["node"], told["health"]
    model, relay, served = node["model"], node["relay"], node["served"]
    blocks = "none"
    if node["span"]:
        first, last = node["span"]
        blocks = f"{first}-{last} of {model['blocks']}, {model['name']}, on {node['engine']}"
    connected = f"connected, {relay['rtt_ms']} ms" if relay["connected"] else relay["error"]
    return {
        "state": node["state"],
        "health": "well" if health["well"] else "; ".join(health["problems"]),
        "process": str(told["pid"]),
        "uptime": str(timedelta(seconds=int(told["uptime_s"]))),
        "cpu": f"{told['cpu_percent']:.0f} % of a core",
        "memory": f"{told['memory_mb']:.0f} MB",
        "peer": node["peer"],
        "relay": f"{relay['url']} ({connected or 'trying'})",
        "blocks": blocks,
        "throughput": f"{node['throughput']:.0f} positions·blocks a second",
        "peers": str(len(node["peers"])),
        "served": f"{served['tokens']} tokens in {served['sessions']} sessions",
    }


def health_status(*, json_form: Json = False, state: State = None) -> None:
    """Tell whether the node is of use to the network; exits with 1 when it is not.

    Parameters
    ----------
    json_form
        As JSON, for scripts.
    state
        The node's directory. Default: ~/.local/state/kwaainet.
    """
    health = _told(state)["health"]
    if json_form:
        _print_json(health)
    else:
        said = "; ".join(health["problems"]) or "well"
        watch = "watched" if health["watching"] else "not watched; `kwaainet health-enable`"
        _print_rows({"health": said, "since": f"{health['seconds']:.0f} s", "watch": watch})
    if not health["well"]:
        sys.exit(1)


def health_enable(*, state: State = None) -> None:
    """Let the node end when it was of no use for five minutes: its service starts it afresh.

    Parameters
    ----------
    state
        The node's directory. Default: ~/.local/state/kwaainet.
    """
    _set_health(True, state)


def health_disable(*, state: State = None) -> None:
    """Let the node go on, whatever its health.

    Parameters
    ----------
    state
        The node's directory. Default: ~/.local/state/kwaainet.
    """
    _set_health(False, state)


def _set_health(watching: bool, state: Path | None) -> None:
    SettingsFile(config_file()).put("node", "health", watching)
    said = f"Health is {'watched' if watching else 'not watched'} from the next start on"
    try:
        ask(Places(state_directory(state)).socket, "health", watching)
        said += ", and by the node that runs"
    except LocalError:
        pass
    Console(highlight=False, emoji=False).print(f"{said}.")


@monitor.command
def stats(*, json_form: Json = False, state: State = None) -> None:
    """List the peers of the node's model, and how each is reached.

    Parameters
    ----------
    json_form
        As JSON, for scripts.
    state
        The node's directory. Default: ~/.local/state/kwaainet.
    """
    node = _told(state)["node"]
    if json_form:
        _print_json({"relay": node["relay"], "peers": node["peers"]})
        return
    table = Table("peer", "host", "engine", "blocks", "path", "rtt ms", "problem", box=None)
    for peer in node["peers"]:
        blocks = f"{peer['first_block']}-{peer['last_block']}"
        way = peer["route"] or peer["path"] or "none"
        row = (peer["host"], peer["engine"], blocks, way)
        table.add_row(f"…{peer['peer'][-8:]}", *row, str(peer["rtt_ms"] or ""), peer["problem"])
    console = Console(highlight=False, emoji=False)
    relay = node["relay"]
    console.print(f"relay {relay['url']}: {'connected' if relay['connected'] else relay['error']}")
    console.print(table if node["peers"] else "no peers serve this model")


@monitor.command
def alert(
    *,
    min_peers: int = 0,
    max_rtt_ms: float | None = None,
    json_form: Json = False,
    state: State = None,
) -> None:
    """Print what is wrong, a line each, and exit with 1; print nothing when all is well.

    Made for cron and the like.

    Parameters
    ----------
    min_peers
        Fewer peers than this are wrong.
    max_rtt_ms
        A longer round trip to the relay is wrong.
    json_form
        As JSON, for scripts.
    state
        The node's directory. Default: ~/.local/state/kwaainet.
    """
    told = _told(state)
    node, wrong = told["node"], list(told["health"]["problems"])
    if len(node["peers"]) < min_peers:
        wrong.append(f"{len(node['peers'])} peers, fewer than {min_peers}")
    rtt = node["relay"]["rtt_ms"]
    if max_rtt_ms is not None and rtt is not None and rtt > max_rtt_ms:
        wrong.append(f"{rtt} ms to the relay and back, more than {max_rtt_ms:g}")
    if json_form:
        _print_json({"alerts": wrong})
    else:
        for line in wrong:
            print(line)
    if wrong:
        sys.exit(1)


def _told(state: Path | None) -> dict[str, Any]:
    """What the process tells. Raises NotRunning, LocalError."""
    places = Places(state_directory(state))
    running(places)
    told = ask(places.socket, "process")
    if not told["node"]:
        raise LocalError("the node is starting; ask again in a moment")
    assert isinstance(told, dict)
    return told


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))


def _print_rows(rows: dict[str, str]) -> None:
    grid = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        grid.add_row(name, value)
    Console(highlight=False, emoji=False).print(grid, soft_wrap=True)
