"""A simulated RTCPeerConnection: real signalling, no packets.

Descriptions look like SDP and carry what others read from one: `a=ice-ufrag`, by which the two
ends find each other, and `a=fingerprint`, which is checked as DTLS would: a relay that swaps
descriptions gets no connection between the two that it lied to.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from pyodide_node.errors import LocalError, ProtocolError, Unreachable
from pyodide_node.hosts.base import Buffer, PeerEvents, Signal
from pyodide_node.wire.limits import CHANNEL_MESSAGE, ICE_DEADLINE

from .pipe import Pipe

if TYPE_CHECKING:
    from .network import SimulatedNetwork

__all__ = ["SimulatedPeer"]

SIGNALLING_DEADLINE = 3 * ICE_DEADLINE
"""For the other side's description to come at all; ICE has its own time from then on."""

GATHERING = 0.002
"""Seconds a host takes to make its description, and again to find its candidates."""

SDP = """v=0\r
o=- {number} 2 IN IP4 0.0.0.0\r
s=-\r
t=0 0\r
a=group:BUNDLE 0\r
m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r
c=IN IP4 0.0.0.0\r
a=ice-ufrag:{ufrag}\r
a=ice-pwd:{password}\r
a=fingerprint:sha-256 {fingerprint}\r
a=setup:{setup}\r
a=mid:0\r
a=sctp-port:5000\r
a=max-message-size:262144\r
"""


class SimulatedPeer:
    """See `base.PeerConnection`."""

    def __init__(
        self, network: SimulatedNetwork, here: str, initiator: bool, events: PeerEvents
    ) -> None:
        if not (network.alive(here) and network.has_webrtc(here)):
            raise Unreachable("this host has no WebRTC", host=here)
        self.here = here
        self.events = events
        self.ufrag = network.random.randbytes(6).hex()
        self.fingerprint = network.random.randbytes(32).hex(":").upper()
        self.expects: tuple[str, str] | None = None
        """The other side's ufrag and fingerprint, as its description had them."""
        self.candidates = False
        self._network = network
        self._initiator = initiator
        self._described = False
        self._pipe: Pipe | None = None
        self._joining = False
        self._done = False
        loop = asyncio.get_running_loop()
        network.peers[self.ufrag] = self
        self._deadline = loop.call_later(SIGNALLING_DEADLINE, self._end, "no answer came")
        if initiator:
            loop.call_later(GATHERING, self._describe, "offer")

    @property
    def buffered(self) -> int:
        return self._pipe.buffered if self._pipe else 0

    async def signal(self, signal: Signal) -> None:
        if self._done:
            return
        if signal.kind == "candidate":
            if signal.sdp and not signal.sdp.startswith("candidate:"):
                raise ProtocolError("not an ICE candidate", sdp=signal.sdp)
            self.candidates = self.candidates or bool(signal.sdp)
        else:
            if signal.kind != ("answer" if self._initiator else "offer") or self.expects:
                raise ProtocolError(f"an {signal.kind} is out of place here")
            ufrag = re.search(r"^a=ice-ufrag:(\w+)\r$", signal.sdp, re.M)
            fingerprint = re.search(r"^a=fingerprint:sha-256 (\S+)\r$", signal.sdp, re.M)
            if not (ufrag and fingerprint):
                raise ProtocolError("not a session description", sdp=signal.sdp)
            self.expects = (ufrag[1], fingerprint[1])
            if not self._initiator:
                asyncio.get_running_loop().call_later(GATHERING, self._describe, "answer")
        self._check()

    def send(self, data: Buffer) -> None:
        if memoryview(data).nbytes > CHANNEL_MESSAGE:
            raise LocalError("larger than a channel message: cut it first", limit=CHANNEL_MESSAGE)
        if self._pipe:
            self._pipe.send(data)

    async def drain(self) -> None:
        if self._pipe:
            await self._pipe.drain()

    async def close(self) -> None:
        if self._pipe:
            await self._pipe.close()
        else:
            self._end("closed here")
            await asyncio.sleep(0)

    def _describe(self, kind: str) -> None:
        if self._done or not self._network.alive(self.here):
            return
        assert kind in ("offer", "answer")
        sdp = SDP.format(
            number=int(self.ufrag, 16),
            ufrag=self.ufrag,
            password=self.ufrag * 2,
            fingerprint=self.fingerprint,
            setup="actpass" if kind == "offer" else "active",
        )
        self._described = True
        self.events.signal(Signal(kind="offer" if kind == "offer" else "answer", sdp=sdp))
        asyncio.get_running_loop().call_later(GATHERING, self._gathered)
        self._check()

    def _gathered(self) -> None:
        """Trickle one candidate and the end of candidates, as browsers do."""
        for line in (f"candidate:1 1 udp 1 {self.here} 9 typ host ufrag {self.ufrag}", ""):
            if not self._done and self._network.alive(self.here):
                self.events.signal(Signal(kind="candidate", sdp=line, mid="0"))

    def _check(self) -> None:
        """Start ICE once both descriptions are here, and join the ends once both can be."""
        if self._done or self._joining or not (self._described and self.expects):
            return
        loop = asyncio.get_running_loop()
        if self._deadline.when() > loop.time() + ICE_DEADLINE:
            self._deadline.cancel()
            self._deadline = loop.call_later(ICE_DEADLINE, self._end, "ICE did not connect")
        other = self._network.peers.get(self.expects[0])
        if other is None or other._done or not other.expects or other.expects[0] != self.ufrag:
            return
        # One side's candidates are enough: the other learns a peer-reflexive one from the check.
        if (self.candidates or other.candidates) and self._network.webrtc(self.here, other.here):
            self._joining = other._joining = True
            rtt = 2 * self._network.link(self.here, other.here).delay
            loop.call_later(2 * rtt, self._join, other)

    def _join(self, other: SimulatedPeer) -> None:
        """ICE and DTLS have taken two round trips."""
        assert self.expects
        assert other.expects
        if self._done or other._done or not self._network.webrtc(self.here, other.here):
            return  # the deadline ends whoever is left
        if (self.expects[1], other.expects[1]) != (other.fingerprint, self.fingerprint):
            self._end("the DTLS certificate is not the one that was signalled")
            other._end("the DTLS certificate is not the one that was signalled")
            return
        for peer, pipe in zip(
            (self, other), self._network.join(self.here, other.here), strict=True
        ):
            peer._deadline.cancel()
            peer._network.peers.pop(peer.ufrag, None)
            peer._pipe = pipe
            pipe.received = peer.events.received
            pipe.closed = peer._closed
            asyncio.get_running_loop().call_soon(peer._opened)

    def _opened(self) -> None:
        if self._pipe and self._pipe.open:
            self.events.opened()

    def _end(self, reason: str) -> None:
        """Give up before the channel opened."""
        if not self._done and self._pipe is None:
            asyncio.get_running_loop().call_soon(self._closed, reason)
            self._deadline.cancel()
            self._network.peers.pop(self.ufrag, None)
            self._done = True

    def _closed(self, reason: str) -> None:
        self._done = True
        if self._network.alive(self.here):
            self.events.closed(reason)
