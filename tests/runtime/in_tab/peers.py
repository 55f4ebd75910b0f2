"""Peer connections of a tab, with frames that only record what they are told."""

from __future__ import annotations

import json
from typing import Any

import js  # noqa: TID251

from pyodide_node.errors import KwaaiNetError, LocalError, Unreachable
from pyodide_node.hosts.base import PeerEvents, Signal
from pyodide_node.hosts.browser.transport import BrowserTransport
from pyodide_node.wire.messages import IceServer


class Log:
    def __init__(self) -> None:
        self.events: list[Any] = []

    def callbacks(self) -> PeerEvents:
        return PeerEvents(
            signal=lambda signal: self.events.append(signal.kind),
            opened=lambda: self.events.append("opened"),
            received=lambda message: self.events.append(message),
            routed=self.events.append,
            closed=lambda reason: self.events.append(("closed", reason)),
        )


async def main(bridge: Any, argument: str) -> str:
    transport = BrowserTransport(bridge)

    def connect(log: Log) -> Any:
        servers = [IceServer("stun:192.0.2.1:3478"), IceServer("turn:192.0.2.1", "name", "word")]
        return transport.connect(initiator=True, ice_servers=servers, events=log.callbacks())

    assert refused(lambda: connect(Log())) == Unreachable.__name__
    old, young = js.openFrame(), js.openFrame()
    first, second = Log(), Log()
    peer = connect(first)
    await peer.signal(Signal(kind="answer", sdp="v=0", mid="0", line=1))
    told = json.loads(await old.told(2))
    assert told[0]["type"] == "rtc-open"
    assert told[0]["initiator"] is True
    turn = {"urls": "turn:192.0.2.1", "username": "name", "credential": "word"}
    assert told[0]["iceServers"] == [{"urls": "stun:192.0.2.1:3478"}, turn]
    link = told[0]["link"]
    assert told[1]["signal"] == {"kind": "answer", "sdp": "v=0", "mid": "0", "line": 1}

    # Another frame has no say in this one's links.
    young.say(json.dumps({"type": "rtc-closed", "link": link, "reason": "not yours"}))
    signal = {"kind": "candidate", "sdp": "", "mid": "", "line": 0}
    old.say(json.dumps({"type": "rtc-signal", "link": link, "signal": signal}))
    old.say(json.dumps({"type": "rtc-opened", "link": link}))
    old.say(json.dumps({"type": "rtc-routed", "link": link, "route": "turn-tcp"}))
    old.deliver(link, "hello")
    assert first.events == ["candidate", "opened", "turn-tcp", b"hello"]

    # Sends of one turn go together; what the channel holds is known to the byte.
    assert refused(lambda: peer.send(bytes(4097))) == LocalError.__name__
    for _ in range(100):
        peer.send(memoryview(bytes(4096)))
    assert peer.buffered == 409_600
    (sent,) = json.loads(await old.told(3))[2:]
    assert sent["messages"] == [4096] * 100
    draining = peer.drain()
    old.say(json.dumps({"type": "rtc-buffered", "link": link, "amount": 300_000}))
    assert peer.buffered == 300_000
    old.say(json.dumps({"type": "rtc-buffered", "link": link, "amount": 1000}))
    await draining
    assert peer.buffered == 1000

    # The tab that held the connection closes: the next one takes over for new ones.
    js.closeFrame(old)
    assert first.events[-1][0] == "closed"
    peer.send(b"into the void")
    await peer.drain()
    other = connect(second)
    await young.told(1)
    await other.close()
    assert second.events == [("closed", "closed here")]
    assert json.loads(await young.told(2))[1]["type"] == "rtc-close"
    js.closeFrame(young)
    assert len([event for event in first.events if event[0] == "closed"]) == 1
    return "{}"


def refused(action: Any) -> str:
    try:
        action()
    except KwaaiNetError as error:
        return error.code
    return "nothing"
