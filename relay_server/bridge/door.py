"""Calls of other peers: read within limits, answered by `Responder`, or refused. Runs in trio."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio
from libp2p.io.exceptions import MessageTooLarge
from libp2p.utils.varint import encode_varint_prefixed, read_varint_prefixed_bytes_limited

from pyodide_node.errors import ProtocolError
from relay_server.bridge import limits
from relay_server.bridge.messages import (
    Find,
    Method,
    Ping,
    Store,
    pack_answer,
    pack_refusal,
    unpack_call,
)
from relay_server.bridge.responder import Responder
from relay_server.rates import Rate

__all__ = ["Door", "close"]

_PARTING: Final = 1.0
"""Seconds for a stream to close."""


class Door:
    """`ping(peer)` tells whether a peer can be reached."""

    def __init__(self, responder: Responder, ping: Callable[[bytes], Awaitable[bool]]) -> None:
        self._responder = responder
        self._ping = ping
        self.refused: Counter[str] = Counter()
        """Calls that were not answered, by reason."""
        self.busy: Counter[bytes] = Counter()
        """Calls of each peer that are read or answered just now."""
        self._spent: dict[bytes, float] = {}
        self._rate = Rate(limits.CALLS_PER_SECOND, limits.CALL_BURST)

    def handler(self, method: Method) -> Callable[[Any], Awaitable[None]]:
        """What libp2p calls with each stream for `method`. Never raises."""

        async def handle(stream: Any) -> None:
            peer: bytes = stream.muxed_conn.peer_id.to_bytes()
            reason = self._refusal(peer)
            if reason:
                self.refused[reason] += 1
                await _reset(stream)
                return
            self.busy[peer] += 1
            try:
                with trio.fail_after(limits.CALL):
                    await self._serve(stream, peer, method)
                await close(stream)
            except Exception as error:  # libp2p's, which have no root of their own, and a deadline
                self.refused[type(error).__name__] += 1
                await _reset(stream)
            finally:
                self.busy[peer] -= 1
                if not self.busy[peer]:
                    del self.busy[peer]

        return handle

    async def _serve(self, stream: Any, peer: bytes, method: Method) -> None:
        id = b""
        try:
            raw = await read_varint_prefixed_bytes_limited(stream, limits.MESSAGE)
            self._spend(peer, 1 + len(raw) / 1024)
            call = unpack_call(raw)
            id = call.id
            answer = pack_answer(id, await self._answer(method, call.data, peer))
        except MessageTooLarge:
            self.refused["TooLarge"] += 1
            answer = pack_refusal(id, f"a call has at most {limits.MESSAGE} bytes")
        except ProtocolError as error:
            self.refused[error.code] += 1
            answer = pack_refusal(id, str(error))
        await stream.write(encode_varint_prefixed(answer))

    async def _answer(self, method: Method, data: bytes, peer: bytes) -> bytes:
        """Raises ProtocolError."""
        match method:
            case "rpc_ping":
                request = Ping.unpack(data)
                back = request.validate and request.node is not None and await self._ping(peer)
                return self._responder.ping(request, peer, back).pack()
            case "rpc_store":
                return self._responder.stored(Store.unpack(data), peer).pack()
            case "rpc_find":
                return self._responder.found(Find.unpack(data), peer).pack()

    def _refusal(self, peer: bytes) -> str:
        """Why a call of this peer is not even read; "" when it is."""
        if self.busy.total() >= limits.CALLS or self.busy[peer] >= limits.CALLS_PER_PEER:
            return "Busy"
        return "TooFast" if self._rate.excess(self._spent.get(peer, 0.0), time.time()) > 0 else ""

    def _spend(self, peer: bytes, units: float) -> None:
        now = time.time()
        self._spent[peer] = self._rate.spend(self._spent.get(peer, 0.0), now, units)
        if len(self._spent) > 4 * limits.CONNECTIONS:
            self._spent = {one: spent for one, spent in self._spent.items() if spent > now}


async def close(stream: Any) -> None:
    """End a stream in good order, as far as that goes."""
    with trio.move_on_after(_PARTING), contextlib.suppress(Exception):
        await stream.close()


async def _reset(stream: Any) -> None:
    with trio.move_on_after(_PARTING), contextlib.suppress(Exception):
        await stream.reset()
