"""Connections that others open, let go of when they end.

libp2p 0.8 keeps a task, and one of `ConnectionConfig.max_connections` places, for every connection
that ever came in, until the host ends: it would let in so many in all, and no more.
"""

from __future__ import annotations

from typing import Any, Final

import trio

__all__ = ["end_with_their_sockets"]

_LOOK_EVERY: Final = 1.0


def end_with_their_sockets(host: Any) -> None:
    """From now on what `host` keeps for a TCP connection that came in ends with its socket."""
    swarm = host.get_network()
    handle = swarm._handle_inbound_connection

    async def handled(stream: Any, *rest: Any) -> None:
        socket = getattr(getattr(stream, "stream", None), "socket", None)
        if socket is None:  # another transport
            await handle(stream, *rest)
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_after, socket, nursery.cancel_scope)
            await handle(stream, *rest)
            nursery.cancel_scope.cancel()

    swarm._handle_inbound_connection = handled


async def _cancel_after(socket: Any, scope: trio.CancelScope) -> None:
    while socket.fileno() != -1:  # noqa: ASYNC110 - it tells nobody that it was closed
        await trio.sleep(_LOOK_EVERY)
    scope.cancel()
