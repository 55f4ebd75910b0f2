"""Candidates of aioice from several servers: it asks one STUN and one TURN server itself, and
waits for them five seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from aioice import Candidate
from aioice.ice import Connection, StunProtocol, relayed_candidate
from aiortc.rtcicetransport import parse_stun_turn_uri

from pyodide_node.errors import Unreachable
from pyodide_node.hosts.base import Route
from pyodide_node.wire.messages import IceServer

__all__ = ["Gathering"]

_STUN_DEADLINE = 1
"""Seconds; two tries, as STUN repeats after half a second. A server that is down must not use up
the other side's whole deadline, on a local network too."""
_TURN_DEADLINE = 2.0
"""TURN takes two round trips, over TLS five."""


class Gathering:
    """Puts its own way to gather into one connection. Raises Unreachable for a server whose URL
    is none.

    The first TURN server that answers serves: those that come after it would only hold ports.
    """

    def __init__(self, servers: Sequence[IceServer]) -> None:
        try:
            parsed = [(parse_stun_turn_uri(server.url), server) for server in servers]
        except ValueError as error:  # aiortc would look at them only later, or never
            raise Unreachable(f"these ICE servers cannot be used: {error}") from error
        self.stun = [server.url for uri, server in parsed if uri["scheme"] == "stun"]
        self._turn = [(uri, server) for uri, server in parsed if uri["scheme"] in ("turn", "turns")]
        self._ways: dict[int, Route] = {}

    def take_over(self, connection: Connection) -> None:
        own = connection.get_component_candidates

        async def gather(component: int, addresses: list[str], timeout: int = 5) -> list[Candidate]:
            loop = asyncio.get_running_loop()
            until = loop.time() + _TURN_DEADLINE
            turning = asyncio.create_task(self._relayed(connection, component))
            asking = asyncio.create_task(own(component, addresses, timeout=_STUN_DEADLINE))
            try:
                found = await asyncio.shield(asking)
                await asyncio.wait([turning], timeout=max(0.0, until - loop.time()))
                return found + (turning.result() if turning.done() else [])
            finally:
                turning.cancel()
                # Cancelled, it would leave its questions running on sockets that are closed.
                await asyncio.wait([asking, turning])

        connection.get_component_candidates = gather  # type: ignore[method-assign]

    def route(self, connection: Connection) -> Route | None:
        """How the pair that ICE settled on goes; None before."""
        for pair in connection._nominated.values():
            if pair.local_candidate.type == "relay":
                return self._ways.get(pair.local_candidate.port, "turn")
            return "turn" if pair.remote_candidate.type == "relay" else "direct"
        return None

    async def _relayed(self, connection: Connection, component: int) -> list[Candidate]:
        """A candidate on the first TURN server that gives one."""
        waiting = {
            asyncio.create_task(self._allocate(connection, component, uri, server))
            for uri, server in self._turn
        }
        found: list[Candidate] = []
        try:
            while waiting and not found:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    if one.exception() is None:  # else this server does not do
                        candidate, protocol = one.result()
                        connection._protocols.append(protocol)
                        found.append(candidate)
        finally:
            for one in waiting:
                one.cancel()
        return found

    async def _allocate(
        self, connection: Connection, component: int, uri: dict[str, Any], server: IceServer
    ) -> tuple[Candidate, StunProtocol]:
        candidate, protocol = await relayed_candidate(
            component=component,
            hide_related_address=False,
            protocol_factory=lambda: StunProtocol(connection),
            turn_server=(uri["host"], uri["port"]),
            turn_username=server.username,
            turn_password=server.credential,
            turn_ssl=uri["scheme"] == "turns",
            turn_transport=uri["transport"],
        )
        tls = uri["scheme"] == "turns"
        self._ways[candidate.port] = (
            "turn-tls" if tls else "turn-tcp" if uri["transport"] == "tcp" else "turn-udp"
        )
        return candidate, protocol
