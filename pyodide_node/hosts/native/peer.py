"""A WebRTC connection with one data channel, by aiortc.

aiortc gathers its candidates before it has a description, so it never trickles its own, but it
takes those of a browser, also ahead of the description. A failed ICE stays in "checking" for
ever there, hence the deadlines.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from aioice.ice import Connection
from aiortc import (
    InvalidStateError,
    RTCConfiguration,
    RTCDataChannel,
    RTCIceCandidate,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.sdp import SessionDescription, candidate_from_sdp

from pyodide_node.errors import LocalError, ProtocolError
from pyodide_node.hosts.base import Buffer, PeerEvents, Signal
from pyodide_node.wire.limits import CHANNEL_MESSAGE, ICE_DEADLINE, LOW_WATER
from pyodide_node.wire.messages import IceServer

from .gathering import Gathering

__all__ = ["CHANNEL_LABEL", "NativePeer"]

CHANNEL_LABEL = "kwaainet"

SIGNALLING_DEADLINE = 3 * ICE_DEADLINE
"""For the other side's description to come at all; ICE has its own time from then on."""


class NativePeer:
    """See `base.PeerConnection`."""

    def __init__(
        self, *, initiator: bool, ice_servers: Sequence[IceServer], events: PeerEvents
    ) -> None:
        self._gathering = Gathering(ice_servers)
        servers = [RTCIceServer(urls=url) for url in self._gathering.stun]
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self._events = events
        self._initiator = initiator
        self._channel: RTCDataChannel | None = None
        self._described = False
        self._early: list[Signal] = []
        """Candidates that came before the description they belong to."""
        self._ended = False
        self._low = asyncio.Event()
        self._low.set()
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._deadline = self._loop.call_later(SIGNALLING_DEADLINE, self._end, "no answer came")
        self._pc.on("connectionstatechange", self._state_changed)
        if initiator:
            self._adopt(self._pc.createDataChannel(CHANNEL_LABEL, ordered=True))
            self._spawn(self._describe())
        else:
            self._pc.on("datachannel", self._adopt)

    @property
    def buffered(self) -> int:
        return self._channel.bufferedAmount if self._channel and not self._ended else 0

    @property
    def _channel_open(self) -> bool:
        return self._channel is not None and self._channel.readyState == "open"

    async def signal(self, signal: Signal) -> None:
        if self._ended:
            return
        if signal.kind == "candidate":
            self._candidate(signal)
            return
        if signal.kind != ("answer" if self._initiator else "offer") or self._described:
            raise ProtocolError(f"an {signal.kind} is out of place here")
        _check_description(signal.sdp)
        self._described = True
        try:
            await self._pc.setRemoteDescription(
                RTCSessionDescription(sdp=signal.sdp, type=signal.kind)
            )
        except Exception as error:  # aiortc has no error of its own for a description
            if self._ended:
                return
            self._end("the other side's description makes no sense")
            raise ProtocolError("not a session description", reason=str(error)) from error
        for early in self._early:
            self._candidate(early)
        if not self._initiator:
            await self._describe()
        if not self._ended and not self._channel_open:
            self._deadline.cancel()
            self._deadline = self._loop.call_later(ICE_DEADLINE, self._end, "ICE did not connect")

    def send(self, data: Buffer) -> None:
        if memoryview(data).nbytes > CHANNEL_MESSAGE:
            raise LocalError("larger than a channel message: cut it first", limit=CHANNEL_MESSAGE)
        channel = self._channel
        if channel and channel.readyState == "open" and not self._ended:
            channel.send(bytes(data))
            if channel.bufferedAmount >= LOW_WATER:
                self._low.clear()

    async def drain(self) -> None:
        await self._low.wait()

    async def close(self) -> None:
        self._end("closed here")
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _describe(self) -> None:
        """Gather, then tell the other side; gathering asks STUN and TURN servers, if any."""
        if self._pc.sctp:
            self._gathering.take_over(self._ice)
        try:
            await self._pc.setLocalDescription()
        except InvalidStateError:
            return  # closed meanwhile
        description = self._pc.localDescription
        if "\r\na=candidate:" not in description.sdp:
            self._end("this machine has no address to connect from")
            return
        self._emit(
            self._events.signal,
            Signal(kind="offer" if self._initiator else "answer", sdp=description.sdp),
        )

    @property
    def _ice(self) -> Connection:
        assert self._pc.sctp
        return self._pc.sctp.transport.transport.iceGatherer._connection

    def _candidate(self, signal: Signal) -> None:
        if not self._described or not self._pc.remoteDescription:
            self._early.append(signal)
        elif not signal.sdp:
            self._spawn(self._add(None))
        else:
            try:
                candidate = candidate_from_sdp(signal.sdp.removeprefix("candidate:"))
            except (AssertionError, ValueError, IndexError) as error:
                raise ProtocolError("not an ICE candidate", sdp=signal.sdp) from error
            candidate.sdpMid = signal.mid or None
            candidate.sdpMLineIndex = signal.line
            # In a task: a name ending in .local may take seconds to resolve, or never.
            self._spawn(self._add(candidate))

    async def _add(self, candidate: RTCIceCandidate | None) -> None:
        # Of another component, after the last, unresolvable: others may still do.
        with contextlib.suppress(ValueError, OSError, InvalidStateError):
            await self._pc.addIceCandidate(candidate)

    def _adopt(self, channel: RTCDataChannel) -> None:
        if self._channel is not None or channel.label != CHANNEL_LABEL:
            channel.close()
            return
        self._channel = channel
        channel.bufferedAmountLowThreshold = LOW_WATER - 1
        channel.on("bufferedamountlow", self._low.set)
        channel.on("message", self._message)
        channel.on("close", lambda: self._end("closed by the other side"))
        if channel.readyState == "open":
            self._opened()
        else:
            channel.on("open", self._opened)

    def _opened(self) -> None:
        self._deadline.cancel()
        self._emit(self._events.opened)
        route = self._gathering.route(self._ice)
        if route is not None:
            self._emit(self._events.routed, route)

    def _message(self, message: bytes | str) -> None:
        if isinstance(message, bytes):
            self._emit(self._events.received, message)

    def _state_changed(self) -> None:
        if self._pc.connectionState in ("failed", "closed"):
            self._end(f"the connection {self._pc.connectionState}")

    def _emit(self, callback: Callable[..., None], *args: Any) -> None:
        """By way of the loop: what a callback raises must not end aiortc's own tasks."""
        self._loop.call_soon(lambda: None if self._ended else callback(*args))

    def _end(self, reason: str) -> None:
        if self._ended:
            return
        self._ended = True
        self._deadline.cancel()
        self._low.set()
        self._loop.call_soon(self._events.closed, reason)
        self._spawn(self._shut([*self._tasks]))

    async def _shut(self, tasks: list[asyncio.Task[None]]) -> None:
        """What gathers ends first: its sockets are still asked for."""
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._pc.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _check_description(sdp: str) -> None:
    """One data section with ICE and DTLS, so that aiortc is asked for nothing else."""
    try:
        media = SessionDescription.parse(sdp).media
        dtls, ice = media[0].dtls, media[0].ice
        one = len(media) == 1 and media[0].kind == "application"
        good = one and dtls and dtls.fingerprints and ice and ice.usernameFragment and ice.password
    except Exception as error:  # the parser indexes and asserts its way through
        raise ProtocolError("not a session description", reason=str(error)) from error
    if not good:
        raise ProtocolError("not the description of one data channel")
