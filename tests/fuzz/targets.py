"""The relay's surfaces, each as a function of bytes. Whatever it raises is a finding.

None needs a socket or sleeps: the hub runs on a clock of the test's own, the protocols on
transports that keep what is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from uvicorn.server import ServerState

from pyodide_node.errors import ConfigError, ProtocolError, RecordError
from pyodide_node.hosts.crypto import SoftwareKeys
from pyodide_node.mesh.announcement import announce, decode_announcement
from pyodide_node.wire import limits
from pyodide_node.wire.frames import Frame, Reassembler, encode, parse
from pyodide_node.wire.messages import Forward, Forwarded, Publish, Subscribe, decode, to_frame
from pyodide_node.wire.records import unpack_record
from relay_server.api.errors import ApiError
from relay_server.api.requests import ChatRequest, CompletionRequest, decode_request
from relay_server.app import make_app
from relay_server.clock import SystemClock
from relay_server.hub import Hub
from relay_server.server import server_config
from relay_server.settings import CONTROL_SLACK, HTTP_HEAD, PARTNERS, RelaySettings
from relay_server.websocket import MeshSocket
from tests.fuzz.feed import Feed
from tests.relay_server.client import MODEL, announcement
from tests.relay_server.fakes import FakeNode, World
from tests.wire.test_messages import EXAMPLES

__all__ = ["TARGETS", "seeds"]

SECRET: Final = "outside of what is served"
SMALL: Final = RelaySettings(
    queue_bytes=20_000,
    total_queue_bytes=100_000,
    max_records=3,
    max_topics=3,
    max_connections=6,
    max_handshakes=3,
    max_per_address=4,
)
_UPGRADE: Final = (
    b"GET /mesh HTTP/1.1\r\nHost: relay.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def wire(data: bytes) -> None:
    """Frames, messages, records: each is read, or refused in its own words."""
    feed = Feed(data)
    link = Reassembler()
    while feed:
        piece = feed.chunk()
        with contextlib.suppress(ProtocolError):
            decode(parse(piece))
        with contextlib.suppress(ProtocolError):
            frame = link.feed(piece)
            if frame is not None:
                assert parse(encode(frame)).body == frame.body
        with contextlib.suppress(RecordError):
            decode_announcement(unpack_record(piece, 1_790_000_000.0))


def hub(data: bytes) -> None:
    """Three hostile nodes do what they like; two honest ones do not notice."""
    _loop().run_until_complete(_hub(Feed(data)))


async def _hub(feed: Feed) -> None:
    world = World(SMALL)
    sender, receiver = await world.node("sender"), await world.node("receiver")
    receiver.hears(sender)
    hostile = [await world.node(f"hostile {number}") for number in range(2)]
    hostile.append(FakeNode(world, "half"))
    keys = [node.key for node in (sender, receiver, *hostile)] + [bytes(32)]
    for _ in range(64):
        if not feed:
            break
        node = feed.pick(hostile)
        if node.socket.closed is not None or node.socket.aborted:
            world.hub.disconnected(node.node)
            continue
        await _act(world, node, keys, feed)
        assert node.socket.buffered <= SMALL.queue_bytes + 2 * CONTROL_SLACK
        assert len(node.node.partners) <= PARTNERS
        assert len(node.node.topics) <= SMALL.max_topics
        assert len(world.hub.directory) <= SMALL.max_records
    world.pass_time(1)
    world.run_calls()
    receiver.take()
    sender.send(Forward(receiver.key), b"still here")
    assert receiver.take() == [Forwarded(sender.key)], "an honest node is not heard any more"
    assert world.hub.entering <= SMALL.max_handshakes


async def _act(world: World, node: FakeNode, keys: list[bytes], feed: Feed) -> None:
    match feed.number(10):
        case 0:
            world.hub.received(node.node, feed.chunk())
        case 1:
            frame = Frame(type=feed.number(64), sequence=node.sequence, body=feed.chunk())
            world.hub.received(node.node, encode(frame))
            node.sequence += 1
        case 2:
            node.send(feed.pick(EXAMPLES), feed.chunk())
        case 3:
            node.send(Forward(feed.pick(keys)), bytes(feed.number(9000)))
        case 4:
            node.send(Subscribe(feed.pick((MODEL, feed.take(1) * 32))))
        case 5:
            said = announcement(feed.pick((MODEL, bytes(32))), 0, feed.number(9))
            signed = bytearray(await announce(node.keys, said, world.clock.wall()))
            if feed.number(2):
                signed[feed.number(len(signed))] ^= 1 << feed.number(8)
            node.send(Publish(bytes(signed)))
        case 6:
            node.socket.reads = not node.socket.reads
            node.socket.drain(min(node.socket.buffered, feed.number(30_000)))
        case 7:
            node.socket.unfinished = feed.number(60_000)
            world.hub.arrived(node.node, feed.number(60_000))
            world.hub.idled(node.node, feed.number(126))
        case 8:
            world.pass_time(feed.number(20) / 2)
            world.run_calls()
        case 9:
            if not node.node.key:
                await node.enter()


class _Transport:
    """Keeps what is written; says at the end that the connection is lost."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.closing = False

    def write(self, data: bytes) -> None:
        if not self.closing:
            self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("192.0.2.1", 1), "sockname": ("192.0.2.2", 2)}.get(name, default)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_write_buffer_limits(self, *_: Any, **__: Any) -> None: ...

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol


def websocket(data: bytes) -> None:
    """Bytes after an upgrade, in pieces, entered or not."""
    _loop().run_until_complete(_websocket(Feed(data)))


async def _websocket(feed: Feed) -> None:
    hub = Hub(SMALL, SystemClock(), lambda *_: None)
    transport = _Transport()
    socket = MeshSocket(hub, server_state=ServerState())
    socket.connection_made(transport)  # type: ignore[arg-type]
    socket.data_received(_UPGRADE)
    (node,) = hub
    if feed.number(2):
        keys = SoftwareKeys(bytes(32), bytes)
        node.key, node.network.entering = keys.public_key, 0
        hub._entering.clear()
        hub._nodes[node.key] = node
        socket.welcome()
    while feed and not transport.closing:
        if feed.number(4):
            socket.data_received(_masked(feed))
        else:
            socket.data_received(feed.chunk() or b"\0")
        assert socket.unfinished <= limits.SOCKET_MESSAGE + 1024
    socket.connection_lost(None)
    assert not list(hub), "a node stays that has left"
    assert not hub.networks.of("192.0.2.1").connections


def _masked(feed: Feed) -> bytes:
    """A frame that is right at least in its length."""
    head = feed.pick((0x82, 0x81, 0x80, 0x02, 0x01, 0x00, 0x88, 0x89, 0x8A, 0x83, 0xC2))
    body = feed.chunk() if feed.number(2) else encode(to_frame(feed.pick(EXAMPLES)))[:2000]
    size = bytes([0x80 | len(body)]) if len(body) < 126 else b"\xfe" + len(body).to_bytes(2)
    return bytes([head]) + size + bytes(4) + body


@cache
def _site() -> tuple[Any, Hub, ServerState, list[str]]:
    """The relay's HTTP with files, models and map, and what it logs as a mistake."""
    folder = Path(tempfile.mkdtemp(prefix="kwaainet-fuzz-"))
    (folder / "cdn" / "runtime").mkdir(parents=True)
    (folder / "secret.txt").write_text(SECRET)
    (folder / "cdn" / "worker.js").write_text("// worker")
    (folder / "cdn" / "runtime" / "a.wasm").write_bytes(bytes(100))
    (folder / "models" / "small" / "blobs").mkdir(parents=True)
    (folder / "models" / "small" / "manifest.json").write_text('{"blocks":1,"license":"MIT"}')
    (folder / "models" / "small" / "blobs" / ("0" * 64)).write_bytes(bytes(1000))
    (folder / "models" / "secret.txt").write_text(SECRET)
    settings = RelaySettings(
        cdn=folder / "cdn", models=folder / "models", requests_per_address=1e9, max_http=10
    )
    hub = Hub(settings, SystemClock(), lambda *_: None)
    config = server_config(make_app(settings, hub), hub)
    config.load()
    mistakes: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            mistakes.append(self.format(record))

    logging.getLogger("uvicorn").addHandler(Keeper(logging.ERROR))
    return config, hub, ServerState(), mistakes


METHODS: Final = ("GET", "HEAD", "POST", "OPTIONS", "PUT", "BREW", "get", "")
PATHS: Final = (
    "/",
    "/worker.js",
    "/runtime/a.wasm",
    "/models/index.json",
    "/models/small/manifest.json",
    "/models/small/blobs/" + "0" * 64,
    "/../secret.txt",
    "/%2e%2e/secret.txt",
    "/..%2fsecret.txt",
    "/runtime/../../secret.txt",
    "/models/../secret.txt",
    "/models/%2e%2e/manifest.json",
    "/models/small/blobs/..%2f..%2f..%2fsecret.txt",
    "/mesh",
    "/map",
    "/map.json",
    "/metrics",
    "/healthz",
    "/readyz",
    "/v1/models",
    "//x",
    "*",
    "http://other.example/",
    "/\0",
    "/%00",
    "/%ff",
)
HEADERS: Final = (
    "Range: bytes=0-0",
    "Range: bytes=5-2,-1,0-",
    "Range: bytes=" + ",".join(f"{n}-{n}" for n in range(50)),
    "Range: lines=1",
    "If-Range: x",
    "If-None-Match: *",
    "If-Modified-Since: yesterday",
    "Accept-Encoding: br;q=0, gzip;q=x, *",
    "X-Forwarded-For: 1.2.3.4, ::1, x",
    "Content-Length: 5",
    "Content-Length: 99999999999999999999",
    "Transfer-Encoding: chunked",
    "Connection: close",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Upgrade: h2c",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    "Origin: null",
    "Expect: 100-continue",
    "Authorization: Bearer",
)


def http(data: bytes) -> None:
    """Requests that are nearly right, one after the other on one connection."""
    _loop().run_until_complete(_http(Feed(data)))


async def _http(feed: Feed) -> None:
    config, hub, state, mistakes = _site()
    transport = _Transport()
    made = partial(config.http_protocol_class, config=config, server_state=state, app_state={})
    connection = made(_loop=asyncio.get_running_loop())
    transport.protocol = connection
    connection.connection_made(transport)
    for _ in range(8):
        if not feed or transport.closing:
            break
        transport.protocol.data_received(_request(feed))
        while state.tasks:
            await asyncio.wait(state.tasks, timeout=0.2)
            if not connection.cycle or not connection.cycle.more_body:
                continue
            break  # it waits for more of the body
    transport.protocol.connection_lost(None)
    for task in list(state.tasks):
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    answer = bytes(transport.written)
    assert SECRET.encode() not in answer, "a file of outside was served"
    assert b"HTTP/1.1 500" not in answer, "an answer of status 500"
    assert not mistakes, mistakes
    assert not len(hub.gate), "a connection stays that is lost"
    assert not list(hub)


def _request(feed: Feed) -> bytes:
    if not feed.number(8):
        return feed.chunk() or b"\r\n"
    lines = [f"{feed.pick(METHODS)} {feed.pick(PATHS)} HTTP/1.1"]
    if feed.number(8):
        lines.append("Host: relay.test")
    lines += [feed.pick(HEADERS) for _ in range(feed.number(6))]
    head = "\r\n".join(lines).encode() + b"\r\n"
    if not feed.number(8):
        head += b"X: " + feed.chunk() * feed.number(1 + HTTP_HEAD // 100) + b"\r\n"
    return head + b"\r\n" + (feed.chunk() if feed.number(2) else b"")


BODIES: Final = (
    b'{"model":"m","prompt":"a","max_tokens":5,"stop":["x"],"stream":true}',
    b'{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a"}]}]}',
    b'{"model":"m","prompt":["a"],"temperature":1e400,"logit_bias":{"1":2},"seed":-1}',
)


def api(data: bytes) -> None:
    """Bodies of the API: read, or refused by name."""
    kind: type[CompletionRequest] | type[ChatRequest]
    for kind in (CompletionRequest, ChatRequest):
        try:
            asked = decode_request(data, kind)
            asked.tokens(100)
            asked.inference(None, 100)
        except (ApiError, ConfigError):
            continue


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "wire": wire,
    "hub": hub,
    "websocket": websocket,
    "http": http,
    "api": api,
}


def seeds(name: str) -> list[bytes]:
    """Inputs to begin with."""
    if name == "api":
        return list(BODIES)
    if name == "wire":
        frames = [encode(to_frame(message, b"payload")) for message in EXAMPLES]
        return [bytes([len(frame)]) + frame for frame in frames if len(frame) < 256]
    return [bytes(range(start, start + 64)) for start in range(0, 192, 16)]
