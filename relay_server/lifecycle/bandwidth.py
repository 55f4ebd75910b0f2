"""How fast this machine's line is, as far as its relay can tell.

A megabyte goes to the relay, addressed to this node itself, and comes back: what a stage of an
answer does with every position, it gets and sends it. The slower direction counts.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from pyodide_node.errors import Unreachable
from pyodide_node.hosts.base import Buffer, Host
from pyodide_node.mesh.relay_client import RelayClient
from pyodide_node.wire.messages import Forward, Forwarded, Message

__all__ = ["line_speed"]

_PACKET: Final = 64 * 1024
_PACKETS: Final = 16
_ENTER: Final = 3.0
_MOST: Final = 3.0
"""Seconds: on a slow line what has come by then says enough."""


async def line_speed(host: Host, relay: str) -> float | None:
    """Bytes a second through the relay at `relay`, as "wss://host/mesh"; None when it does not
    answer. Takes a connection of its own, so it is over before the node connects."""
    own = host.keys.public_key
    came = 0
    last = asyncio.Event()

    def received(message: Message, payload: Buffer) -> None:
        nonlocal came
        if isinstance(message, Forwarded) and message.sender == own:
            came += len(payload)
            if came == _PACKETS * _PACKET:
                last.set()

    client = RelayClient(host, [relay], received, lambda connected: None)
    client.start()
    try:
        await client.entered(_ENTER)
        begun = host.clock.monotonic()
        packet = host.keys.random(_PACKET)  # nothing on the way can make less of it
        for _ in range(_PACKETS):
            client.send(Forward(own), packet)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_MOST):
                await last.wait()
        return came / max(host.clock.monotonic() - begun, 1e-6) or None
    except Unreachable:
        return None
    finally:
        await client.close()
