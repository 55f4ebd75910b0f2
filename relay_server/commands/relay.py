"""`kwaainet relay`: everything that nodes need to find each other, in one process."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pyodide_node.errors import ConfigError
from relay_server.relay import Relay
from relay_server.settings import RelaySettings, default_cdn, default_models

__all__ = ["relay", "serve"]

_DEFAULTS = RelaySettings()
_LIMIT = Parameter(group="Limits")
_REPEATED = Parameter(negative=(), show_default=False)


def _print(text: str) -> None:
    print(text, flush=True)


def relay(
    *,
    host: str = _DEFAULTS.host,
    port: int = _DEFAULTS.port,
    cdn: Path | None = None,
    models: Path | None = None,
    stun: bool = True,
    ice_server: Annotated[tuple[str, ...], _REPEATED] = (),
    audience: Annotated[tuple[str, ...], _REPEATED] = (),
    trust_proxy: Annotated[tuple[str, ...], _REPEATED] = (),
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    max_connections: Annotated[int, _LIMIT] = _DEFAULTS.max_connections,
    max_per_address: Annotated[int, _LIMIT] = _DEFAULTS.max_per_address,
    max_records: Annotated[int, _LIMIT] = _DEFAULTS.max_records,
    messages_per_second: Annotated[float, _LIMIT] = _DEFAULTS.messages_per_second,
    bytes_per_second: Annotated[float, _LIMIT] = _DEFAULTS.bytes_per_second,
    queue_bytes: Annotated[int, _LIMIT] = _DEFAULTS.queue_bytes,
    total_queue_bytes: Annotated[int, _LIMIT] = _DEFAULTS.total_queue_bytes,
) -> None:
    """Run a relay: browser files, directory, forwarding and STUN on one port.

    It sees neither prompts nor activations, and writes no addresses down. Stop it with Ctrl-C.

    Parameters
    ----------
    host
        Address to listen on: 127.0.0.1 for this machine alone, 0.0.0.0 for everybody.
    port
        TCP port, and UDP port for STUN. 0 takes a free one.
    cdn
        Directory of the browser files. Default: those that came along, else ./dist/cdn.
    models
        Directory of models to offer. Default: those that came along, else ./dist/models.
    stun
        Answer STUN, so that tabs behind NATs find their public address.
    ice_server
        STUN server to tell nodes of in place of this one, "stun:host:port"; may be repeated.
    audience
        Name this relay is dialled by, as host or host:port; may be repeated. Name it when the
        relay is public: nodes then cannot be passed off to it by another relay they dial.
    trust_proxy
        Address of a reverse proxy whose X-Forwarded-For is believed; may be repeated.
    tls_cert
        Certificate chain, PEM. Pages on https need a relay with TLS, here or in a proxy.
    tls_key
        Its private key, PEM.
    max_connections
        Nodes connected at once.
    max_per_address
        Of those, from one IPv4 address or one IPv6 /64.
    max_records
        Announcements held.
    messages_per_second
        From one node; beyond it, it is read more slowly.
    bytes_per_second
        From one node; beyond it, it is read more slowly.
    queue_bytes
        Waiting for one slow node before what is sent to it is undelivered.
    total_queue_bytes
        Waiting for all nodes together.
    """
    try:
        settings = RelaySettings(
            host=host,
            port=port,
            cdn=_directory("cdn", cdn) or default_cdn(),
            models=_directory("models", models) or default_models(),
            stun=stun,
            ice_servers=ice_server,
            audiences=frozenset(name.lower() for name in audience),
            trusted_proxies=frozenset(trust_proxy),
            tls_cert=tls_cert,
            tls_key=tls_key,
            max_connections=max_connections,
            max_per_address=max_per_address,
            max_records=max_records,
            messages_per_second=messages_per_second,
            bytes_per_second=bytes_per_second,
            queue_bytes=queue_bytes,
            total_queue_bytes=total_queue_bytes,
        )
    except ValueError as error:
        raise ConfigError(str(error), setting="tls") from None
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(settings))


async def serve(settings: RelaySettings, say: Callable[[str], None] = _print) -> None:
    """Run a relay until SIGINT or SIGTERM; `say` gets what people should read."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C cancels the task
            loop.add_signal_handler(number, stop.set)
    async with Relay(settings) as running:
        say(_greeting(running))
        await stop.wait()
        say("Stopping; the nodes are told to come back.")


def _greeting(running: Relay) -> str:
    settings = running.settings
    lines = [f"KwaaiNet relay on {running.url}"]
    if settings.cdn is None:
        lines.append("  no browser files here: build them, or name their directory with --cdn")
    else:
        lines.append("  paste this into your page:")
        lines.append(f'    <script async src="{running.url}/sovereign-ai.js"></script>')
    lines.append(f"  native nodes dial {running.mesh_url}")
    lines.append(f"  models: {settings.models or 'none; name their directory with --models'}")
    lines.append(f"  STUN: {f'UDP port {running.port}' if settings.stun else 'off'}")
    lines.append(f"  status: {running.url}/status.json, {running.url}/metrics")
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
