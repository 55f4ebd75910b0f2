"""`kwaainet relay`: everything that nodes need to find each other, in one process."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyodide_node import __version__
from pyodide_node.errors import ConfigError, KwaaiNetError
from relay_server.commands.node_options import relay_state
from relay_server.logs import LOG, write_logs
from relay_server.open_files import SPARE_FILES, raise_open_files
from relay_server.relay import Relay
from relay_server.settings import RelaySettings, default_cdn, default_models

__all__ = ["relay", "serve"]


def _print(text: str) -> None:
    print(text, flush=True)


def relay(*, settings: RelaySettings = RelaySettings()) -> None:  # noqa: B008 - frozen
    """Run a relay: browser files, directory, forwarding and STUN on one port.

    It sees neither prompts nor activations, unless you switch on its --api, and writes no
    addresses down. Stop it with Ctrl-C.
    Every setting can be given as an option, in the environment, or under [relay] in the settings
    file; see docs/RELAY.md.
    """
    settings = dataclasses.replace(
        settings,
        cdn=_directory("cdn", settings.cdn) or default_cdn(),
        models=_directory("models", settings.models) or default_models(),
        state=relay_state(settings.state),
        audiences=frozenset(name.lower() for name in settings.audiences),
    )
    write_logs(settings.log_format, settings.log_level)
    room = raise_open_files() - SPARE_FILES
    if room < settings.max_connections:
        settings = dataclasses.replace(settings, max_connections=max(1, room))
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        try:
            runner.run(serve(settings))
        except KwaaiNetError as error:
            if settings.log_format == "text":
                raise
            LOG.error("failed", reason=str(error))
            raise SystemExit(1) from None


async def serve(settings: RelaySettings, say: Callable[[str], None] = _print) -> None:
    """Run a relay until SIGINT or SIGTERM; `say` gets what people should read, and the log what
    programs should.
    """
    text = settings.log_format == "text"
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C cancels the task
            loop.add_signal_handler(number, stop.set)
    async with Relay(settings) as running:
        if text:
            say(_greeting(running))
        else:
            LOG.info("started", **_facts(running))
        await stop.wait()
        if text:
            say("Stopping; the nodes are told to come back.")
        else:
            LOG.info("stopping", nodes=len(running.hub))
    if not text:
        LOG.info("stopped")


def _facts(running: Relay) -> dict[str, Any]:
    settings = running.settings
    return {
        "version": __version__,
        "port": running.port,
        "tls": settings.tls_cert is not None,
        "stun": settings.stun,
        "api": settings.api,
        "database": "postgresql" if settings.database else "sqlite",
    }


def _greeting(running: Relay) -> str:
    settings = running.settings
    lines = [f"KwaaiNet relay on {running.url}"]
    if settings.cdn is None:
        lines.append("  no browser files here: build them, or name their directory with --cdn")
    else:
        lines.append("  paste this into your page:")
        lines.append(f'    <script async src="{running.url}/sovereign-ai.js"></script>')
    lines.append(f"  native nodes dial {running.mesh_url}")
    if settings.models is None:
        lines.append("  models: none; name their directory with --models")
    else:
        lines.append(f"  models: {settings.models}; add one with `kwaainet model add PATH`")
    for address in running.addresses:
        lines.append(f"  other relays meet it by --bootstrap {address}")
    lines.append(f"  STUN: {f'UDP port {running.port}' if settings.stun else 'off'}")
    if settings.api:
        lines.append(f"  API: {running.url}/v1; this relay reads what is asked there")
    lines.append(f"  map: {running.url}/map; metrics: {running.url}/metrics")
    if settings.max_connections < RelaySettings().max_connections:
        lines.append(f"  at most {settings.max_connections} nodes (ulimit -n, --max-connections)")
    if settings.host not in ("127.0.0.1", "::1", "localhost") and not settings.audiences:
        lines.append("  open to others: name the relay with --audience your.host.name")
    return "\n".join(lines)


def _directory(setting: str, path: Path | None) -> Path | None:
    if path is not None and not path.is_dir():
        raise ConfigError(f"--{setting} {path} is not a directory", setting=setting)
    return path


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop
