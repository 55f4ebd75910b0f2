"""`kwaainet benchmark`: how fast this machine runs its blocks, kept for the next start."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console

from pyodide_node.core import KwaaiNetCore
from pyodide_node.hosts.native import native_host
from pyodide_node.model.footprint import NATIVE_ENGINES
from relay_server.commands.node_options import NodeOptions, state_directory
from relay_server.commands.start import prepare
from relay_server.lifecycle.places import Places
from relay_server.lifecycle.speed import Speeds, engine_speed

__all__ = ["benchmark"]


def benchmark(
    *,
    steps: Annotated[int, Parameter(validator=Number(gte=1, lte=10_000))] = 20,
    model: str = "",
    json_form: Annotated[bool, Parameter(name="--json", negative=())] = False,
    options: NodeOptions | None = None,
) -> None:
    """Time single positions through as many blocks as fit, after one to warm up.

    The figure is kept, and announced by the next `kwaainet start` of the same model.

    Parameters
    ----------
    steps
        Positions to time.
    model
        Name of the model. Default: the one that `kwaainet start` would take.
    json_form
        As JSON, for scripts.
    """
    found = asyncio.run(_benchmark(steps, model, options or NodeOptions()))
    if json_form:
        print(json.dumps(found, indent=2))
        return
    first, last = found["span"]
    Console(highlight=False, emoji=False).print(
        f"{found['model']}, blocks {first}-{last} on {found['engine']}:"
        f" {found['rate']:.0f} positions·blocks a second,"
        f" {found['tokens_per_second']:.1f} tokens a second through all {found['blocks']} blocks"
        f" ({steps} steps in {found['seconds']:.2f} s)",
        soft_wrap=True,
    )


async def _benchmark(steps: int, wanted: str, options: NodeOptions) -> dict[str, Any]:
    places = Places(state_directory(options.state))
    # An identity of its own, so that it can run beside the node of this machine.
    host = await native_host(
        places.state / "asker", cache_dir=places.state / "cache", threads=options.threads
    )
    core = None
    try:
        config, choice = await prepare(wanted, places, host, options)
        # Without a relay nobody hears of it; a rate that is known saves measuring twice.
        config = dataclasses.replace(
            config, relays=(), model=choice.model, rates=dict.fromkeys(NATIVE_ENGINES, 1.0)
        )
        core = KwaaiNetCore(host, config)
        await core.initialize()
        begun = time.monotonic()
        rate = await core.measure(steps)
        seconds = time.monotonic() - begun
        status = await core.status()
    finally:
        if core is not None:
            await core.close()
        host.close()
    model, engine = status["model"], status["engine"]
    Speeds(places.speeds).keep(engine_speed(model["id"], engine, options.threads), rate)
    return {
        "model": model["name"],
        "blocks": model["blocks"],
        "span": list(status["span"]),
        "engine": engine,
        "threads": options.threads,
        "steps": steps,
        "seconds": round(seconds, 3),
        "rate": round(rate, 1),
        "tokens_per_second": round(rate / model["blocks"], 2),
    }
