"""`kwaainet calibrate`: how many blocks of a model this machine should hold."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any, Final, Literal

import psutil
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from pyodide_node.budget import MEGABYTE
from pyodide_node.config import ResourceLimits
from pyodide_node.core import KwaaiNetCore
from pyodide_node.errors import BudgetExceeded
from pyodide_node.hosts.native import native_host
from pyodide_node.model.footprint import native_engines
from pyodide_node.model.manifest import Manifest
from pyodide_node.model.plan import plan
from relay_server.commands.node_options import NodeOptions, state_directory
from relay_server.commands.start import prepare
from relay_server.lifecycle.places import Places
from relay_server.settings_file import SettingsFile
from relay_server.sources import config_file

__all__ = ["calibrate"]

Level = Literal["min", "recommended", "max"]

SHARES: Final[dict[Level, float]] = {"min": 0.1, "recommended": 0.5, "max": 0.85}
"""Of the memory that is free now: a node is a guest, and a machine that swaps serves nobody."""


def calibrate(
    *,
    apply: Annotated[Level | None, Parameter(show_default=False)] = None,
    model: str = "",
    json_form: Annotated[bool, Parameter(name="--json", negative=())] = False,
    options: NodeOptions | None = None,
) -> None:
    """Reckon how many blocks fit into the memory that is free now, at three levels.

    Embedding and head, one session over the blocks, and what loading takes are reckoned with.

    Parameters
    ----------
    apply
        Write this level's memory cap and number of blocks to the settings file.
    model
        Name of the model. Default: the one that `kwaainet start` would take.
    json_form
        As JSON, for scripts.
    """
    options = options or NodeOptions()
    found = asyncio.run(_calibrate(model, options))
    if apply is not None:
        _apply(found["levels"][apply], options)
    if json_form:
        print(json.dumps(found, indent=2))
        return
    console = Console(highlight=False, emoji=False)
    console.print(f"{found['model']}: {found['blocks']} blocks; {found['free_mb']} MB are free")
    table = Table("level", "memory", "blocks", box=None)
    for level, row in found["levels"].items():
        table.add_row(level, f"{row['memory']} MB", str(row["blocks"] or "none fits"))
    console.print(table)
    if apply is not None:
        console.print(f"{apply} is in {config_file()}; `kwaainet restart` takes it up")
    else:
        console.print("write one to the settings file: kwaainet calibrate --apply recommended")


async def _calibrate(wanted: str, options: NodeOptions) -> dict[str, Any]:
    places = Places(state_directory(options.state))
    host = await native_host(
        places.state / "asker", cache_dir=places.state / "cache", threads=options.threads
    )
    try:
        config, _ = await prepare(wanted, places, host, options)
        model = await KwaaiNetCore(host, config).find(config.model)
        free = psutil.virtual_memory().available
        levels = {}
        for level, share in SHARES.items():
            memory = max(64, int(free * share / MEGABYTE))
            levels[level] = {"memory": memory, "blocks": _blocks(model.manifest, memory)}
        return {
            "model": model.manifest.name,
            "blocks": model.manifest.blocks,
            "free_mb": free // MEGABYTE,
            "levels": levels,
        }
    finally:
        host.close()


def _blocks(manifest: Manifest, memory: int) -> int:
    return plan(manifest, native_engines(manifest), "native", memory * MEGABYTE).blocks


def _apply(level: dict[str, int], options: NodeOptions) -> None:
    """Raises BudgetExceeded when nothing fits at this level."""
    if not level["blocks"]:
        raise BudgetExceeded(
            "not one block fits at this level; close other programs or choose another model",
            resource="memory",
        )
    limits = ResourceLimits.parse(options.max_resources)
    caps = f"cpu:{limits.cpu},memory:{level['memory']},storage:{limits.storage}"
    file = SettingsFile(config_file())
    file.put("node", "max_resources", caps)
    file.put("node", "max_blocks", level["blocks"])
