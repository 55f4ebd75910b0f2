"""`kwaainet bridge`: shows this network's blocks to hivemind's DHT, in a process of its own."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pyodide_node.errors import ConfigError
from pyodide_node.hosts.native.keys import load_keys
from relay_server.bridge.settings import BridgeSettings
from relay_server.commands.node_options import state_directory

__all__ = ["bridge", "serve"]

_KEY = "identity.pem"


def _print(text: str) -> None:
    print(text, flush=True)


def bridge(*, settings: BridgeSettings = BridgeSettings()) -> None:  # noqa: B008 - frozen
    """Announce what a relay's network serves in the DHT of hivemind and Petals.

    For those who look there: a client of Petals cannot run a model through it. Needs
    `pip install 'kwaainet[federation]'`, best in an environment of its own. Stop it with Ctrl-C: it
    then takes its announcements back.
    Every setting can be given as an option, in the environment, or under [bridge] in the settings
    file; see docs/BRIDGE.md.
    """
    try:
        import trio
    except ImportError:
        raise ConfigError(
            "the bridge needs libp2p: pip install 'kwaainet[federation]', "
            "best in an environment of its own",
            setting="bridge",
        ) from None
    trio.run(serve, settings)


async def serve(settings: BridgeSettings, say: Callable[[str], None] = _print) -> None:
    """Run a bridge until SIGINT or SIGTERM; `say` gets what people should read."""
    import trio

    from relay_server.bridge.bridge import Bridge
    from relay_server.bridge.host import DhtHost

    # It reports what others do wrong as errors of its own.
    logging.getLogger("libp2p").setLevel(logging.CRITICAL)
    host = DhtHost(
        _seed(settings), settings.multiaddr, settings.announce_address, settings.bootstraps
    )
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with host.run():
            say(_greeting(host.name, host.addresses, settings))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(Bridge(settings, host, say).run)
                async for _ in signals:
                    say("Stopping; announcements are taken back.")
                    nursery.cancel_scope.cancel()
                    break


def _seed(settings: BridgeSettings) -> bytes:
    """Raises StoreError."""
    directory = settings.state or state_directory(None) / "bridge"
    load_keys(directory / _KEY)  # makes it, and refuses one that others may read
    key = load_pem_private_key((directory / _KEY).read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    return key.private_bytes_raw()


def _greeting(name: str, addresses: list[str], settings: BridgeSettings) -> str:
    lines = [f"KwaaiNet bridge {name}", f"  announces what {settings.relay} serves"]
    lines += [f"  listens on {address}" for address in addresses]
    if not settings.bootstraps:
        lines.append("  no first peer: name one with --bootstrap, or wait to be found")
    return "\n".join(lines)
