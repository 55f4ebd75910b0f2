"""`kwaainet start`: this machine as a node."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from pyodide_node.config import NodeConfig, models_url
from pyodide_node.errors import KwaaiNetError, RemoteError
from pyodide_node.hosts.native import NativeHost, native_host
from pyodide_node.model.footprint import NATIVE_ENGINES
from relay_server.commands.node_options import NodeOptions, state_directory
from relay_server.commands.teller import Teller
from relay_server.lifecycle.bandwidth import line_speed
from relay_server.lifecycle.choice import Choice, Network, choose, read_network, shelve
from relay_server.lifecycle.daemon import spawn
from relay_server.lifecycle.health import Health
from relay_server.lifecycle.journal import LOG, log_to
from relay_server.lifecycle.places import Places
from relay_server.lifecycle.running import RunningNode
from relay_server.lifecycle.speed import Speeds, engine_speed, line_speed_to
from relay_server.settings import default_models

__all__ = ["prepare", "start"]


def start(
    *,
    model: str = "",
    daemon: Annotated[bool, Parameter(negative=())] = False,
    health: bool = False,
    log_file: Annotated[Path | None, Parameter(show=False)] = None,
    options: NodeOptions | None = None,
) -> None:
    """Run a node on this machine: serve blocks of a model to everybody on the relay.

    It takes the blocks that the swarm needs most and that fit its caps. Stop it with Ctrl-C or
    `kwaainet stop`: answers under way get ten seconds to end.

    Parameters
    ----------
    model
        Name of the model to serve. Default: of those on this machine the one that most nodes of
        the network serve, else the relay's first.
    daemon
        Run in the background, with its log in the state directory; come back when it serves.
    health
        Watch the node's health: when it was of no use for five minutes it ends, so that the
        service that started it starts it afresh.
    """
    options = options or NodeOptions()
    places = Places(state_directory(options.state))
    if daemon:
        arguments = [word for word in sys.argv[1:] if word != "--daemon"]
        told = spawn(places, arguments)
        Console(highlight=False, emoji=False).print(
            f"Node {told['node']['peer']} runs, process {told['pid']}."
        )
        return
    if log_file is not None:
        log_to(log_file)
    asyncio.run(_start(model, health, places, options, quiet=log_file is not None))


async def _start(
    model: str, health: bool, places: Places, options: NodeOptions, *, quiet: bool
) -> None:
    teller = Teller(quiet=quiet)
    host = await native_host(places.state, threads=options.threads)
    try:
        speeds = Speeds(places.speeds)
        config, choice = await prepare(model, places, host, options)
        teller.say(f"model {choice.name or 'of the relay'}: {choice.why}")
        names = {one: engine_speed(choice.model, one, options.threads) for one in NATIVE_ENGINES}
        known: dict[str, float] = {
            one: speed.rate for one, name in names.items() if (speed := speeds.find(name))
        }
        config = dataclasses.replace(
            config,
            rates=known,
            network=config.network or await _line(host, config.relays[0], speeds),
        )

        def hear(notice: dict[str, object]) -> None:
            teller.hear(notice)
            if notice["event"] == "status":
                _keep(speeds, known, notice["value"], options.threads)

        await RunningNode(places, host, config, hear, Health(watching=health)).run()
    except KwaaiNetError as error:
        LOG.error("%s", error)
        raise
    finally:
        host.close()


async def prepare(
    model: str, places: Places, host: NativeHost, options: NodeOptions
) -> tuple[NodeConfig, Choice]:
    """What to serve, and from where its files come: this machine first, then the relay."""
    config = options.config(model, frozenset({"compute"}))
    models = options.models or default_models()
    here, source = shelve(models, places.shelf)
    try:
        network = await read_network(host.store, models_url(options.relay).removesuffix("/models/"))
    except RemoteError as error:
        LOG.warning("the relay's map is not known: %s", error)
        network = Network({}, {})
    choice = choose(model, here, network)
    sources = (source, *config.sources) if here else config.sources
    return dataclasses.replace(config, model=choice.model, sources=sources), choice


async def _line(host: NativeHost, relay: str, speeds: Speeds) -> float | None:
    """Bytes a second that can be sent, measured at most once a day."""
    known = speeds.find(line_speed_to(relay))
    if known is not None:
        return known.rate
    rate = await line_speed(host, relay)
    if rate is not None:
        speeds.keep(line_speed_to(relay), rate)
        LOG.info("the line to the relay and back takes %.1f Mbit/s", rate * 8 / 1e6)
    return rate


def _keep(speeds: Speeds, known: dict[str, float], status: object, threads: int) -> None:
    """Remember the speed that the node measured, once an engine: a status comes every second."""
    assert isinstance(status, dict)
    engine = status["engine"]
    if engine not in known and status["rate"] and status["model"]:
        known[engine] = status["rate"]
        speeds.keep(engine_speed(status["model"]["id"], engine, threads), status["rate"])
