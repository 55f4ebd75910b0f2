"""The ports: all that differs between a tab, CPython and the simulator.

The core never imports `js`, aiortc, onnxruntime or a socket. It is handed one `Host` and uses
asyncio only for tasks, futures and timeouts, so that a loop with a virtual clock can run it.

Buffers: `Buffer` is anything `memoryview` accepts. Tensors on these borders are raw
little-endian float32, C order, without a header; shapes travel beside them.
A port raises only errors of `pyodide_node.errors`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from pyodide_node.model.manifest import Manifest
    from pyodide_node.wire.messages import IceServer

__all__ = [
    "Agreement",
    "BlobReader",
    "Buffer",
    "Cache",
    "Candidates",
    "Cipher",
    "Clock",
    "Ends",
    "Engine",
    "EngineName",
    "Got",
    "Host",
    "HostKind",
    "Keys",
    "PeerConnection",
    "PeerEvents",
    "PieceReader",
    "Pieces",
    "RelaySocket",
    "Route",
    "Signal",
    "Span",
    "Store",
    "Transport",
]

Buffer = bytes | bytearray | memoryview
Pieces = Sequence[tuple[str, int]]
"""(sha256 in hex, bytes) of each, in order."""
Got = Callable[[str, bool], None]
"""Told the sha256 of a piece that has come, and whether it was kept."""
HostKind = Literal["tab", "native", "simulated"]
EngineName = Literal[
    "webgpu",
    "webgpu-fp16",
    "wasm",
    "wasm-int8",
    "wasm-int4",
    "onnxruntime",
    "onnxruntime-fp32",
    "simulated",
]
"""Where a node computes and with what: "wasm" expands weights to fp32, exactly; "wasm-int8"
multiplies 8-bit integers, which changes tokens slightly; "webgpu-fp16" computes in half precision;
the others run the weights as they are, in fp32."""


class Clock(Protocol):
    def wall(self) -> float:
        """Seconds since 1970, UTC: only for expiries that others read."""

    def monotonic(self) -> float:
        """Seconds that never go back: for every duration and deadline."""


class Cipher(Protocol):
    """AES-256-GCM under one key, one direction."""

    async def seal(self, nonce: bytes, plaintext: Buffer, associated: bytes) -> bytes:
        """`nonce` is 12 bytes and never used twice; returns ciphertext || 16-byte tag."""

    async def open(self, nonce: bytes, ciphertext: Buffer, associated: bytes) -> bytes:
        """Raises SealError when the tag does not match."""


class Agreement(Protocol):
    """One ephemeral X25519 key pair (RFC 7748), thrown away after `derive`."""

    @property
    def public_key(self) -> bytes:
        """32 bytes."""

    async def derive(
        self, peer_public_key: bytes, salt: bytes, infos: Sequence[bytes]
    ) -> list[Cipher]:
        """HKDF-SHA-256 (RFC 5869) over the shared secret; one Cipher for each info.

        Raises SealError for a public key of low order.
        """


class Keys(Protocol):
    """The node's Ed25519 identity; the private half never leaves the host."""

    @property
    def public_key(self) -> bytes:
        """32 bytes."""

    async def sign(self, data: Buffer) -> bytes:
        """A 64-byte Ed25519 signature (RFC 8032)."""

    async def verify(self, public_key: bytes, signature: bytes, data: Buffer) -> bool:
        """False for any signature that is not valid; never raises for bad input."""

    async def agreement(self) -> Agreement: ...

    async def unlock(self, key: bytes, file: int, blob: Any, first: int = 0) -> Any:
        """The plain content of file number `file` of a private model (delivery/private.py), or of
        its pieces from `first` on.

        `blob` and the result are as in `Store.join`; of bytes it makes bytes. Raises SealError.
        """

    def random(self, count: int) -> bytes:
        """`count` cryptographically strong random bytes."""


class RelaySocket(Protocol):
    """A WebSocket to a relay: binary messages, in order."""

    @property
    def buffered(self) -> int:
        """Bytes handed to `send` that have not left yet."""

    def send(self, data: Buffer) -> None:
        """Queue one message; silently dropped once the socket has closed."""

    async def drain(self) -> None:
        """Return when `buffered` is below the low-water mark, or the socket closed."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """What WebRTC peers tell each other before they are connected (JSEP, RFC 8829)."""

    kind: Literal["offer", "answer", "candidate"]
    sdp: str
    """Session description, or the candidate line for `candidate` ("" ends candidates)."""
    mid: str = ""
    line: int = 0


Route = Literal["direct", "turn", "turn-udp", "turn-tcp", "turn-tls"]
"""How packets of a peer connection travel: straight between the two, by the other side's TURN
server, or by one that this side reaches in this way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerEvents:
    """Callbacks of one peer connection; called from the event loop, never re-entrantly."""

    signal: Callable[[Signal], None]
    opened: Callable[[], None]
    received: Callable[[bytes], None]
    closed: Callable[[str], None]
    """With a reason for people; called once, also when it never opened."""
    routed: Callable[[Route], None] = lambda route: None
    """The way found, and each one that takes its place; not on hosts that cannot tell."""


class PeerConnection(Protocol):
    """One RTCPeerConnection with one ordered, reliable data channel."""

    @property
    def buffered(self) -> int: ...

    async def signal(self, signal: Signal) -> None:
        """Take what the peer said. Raises ProtocolError for a description that is not one."""

    def send(self, data: Buffer) -> None:
        """Queue one message of at most `limits.CHANNEL_MESSAGE` bytes; dropped once closed."""

    async def drain(self) -> None:
        """As `RelaySocket.drain`."""

    async def close(self) -> None: ...


class Transport(Protocol):
    async def dial(
        self, url: str, received: Callable[[bytes], None], closed: Callable[[str], None]
    ) -> RelaySocket:
        """Open a WebSocket. Raises Unreachable. `closed` is called once if it opened."""

    def connect(
        self, *, initiator: bool, ice_servers: Sequence[IceServer], events: PeerEvents
    ) -> PeerConnection:
        """Begin a WebRTC connection; the initiator makes the channel and the offer.

        Raises Unreachable where WebRTC is not to be had.
        """


class Store(Protocol):
    """Pieces by hash, and small values by name. Without storage it keeps things in memory.

    A piece is a file, or what one hash covers of it (see model/pieces.py). What may not or
    cannot be kept waits in memory until it is joined or dropped: it is *loose*.
    """

    @property
    def persistent(self) -> bool:
        """False where storage is denied: everything is gone with the node."""

    async def fetch(self, url: str, limit: int) -> bytes:
        """GET a small resource of at most `limit` bytes. Raises Unreachable, StoreError."""

    async def has(self, sha256: str) -> bool:
        """Whether the piece is here, kept or loose."""

    async def pull(
        self, url: str, offset: int | None, pieces: Pieces, *, keep: bool, got: Got
    ) -> bool:
        """GET pieces that lie one behind the other from byte `offset` of a file on; None: the
        pieces are all of it. Each is checked, stored and told to `got` while the next one comes:
        what an answer brought before it broke off stays.

        Returns whether no more was sent than was asked for: False of a server that knows no
        ranges. Raises IntegrityError at the first piece that is not what its hash says, and
        Unreachable when the URL does not answer, stalls, or ends early.
        """

    async def take(self, sha256: str, piece: Buffer, *, keep: bool) -> bool:
        """Store a piece that a peer sent; whether it was kept. Raises IntegrityError."""

    async def read(self, sha256: str, size: int) -> bytes | None:
        """A piece, checked against its hash again; None when absent or damaged (and dropped)."""

    async def join(self, pieces: Pieces) -> Any | None:
        """The file of these pieces, each checked again; None when one is absent or damaged (and
        dropped). Loose ones are dropped then. The value is opaque: bytes on CPython, a
        PieceFile in a tab, so that weights never enter Python's memory there. Only the host's
        own engine reads it."""

    async def drop(self, sha256: str) -> None: ...

    async def held(self) -> dict[str, int]:
        """The size in bytes of every piece that is kept, by hash, least recently used first."""

    async def get(self, name: str) -> bytes | None: ...

    async def put(self, name: str, value: bytes) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """The head's best tokens for one position."""

    ids: Sequence[int]
    """Descending by value; equal values lowest id first."""
    values: Sequence[float]
    """Logits divided by the temperature."""
    logsumexp: float
    """Over the whole vocabulary, of the same scaled logits."""


class Cache(Protocol):
    """The keys and values of one session over one span; stays with the engine."""

    @property
    def capacity(self) -> int:
        """Positions it has room for."""

    def close(self) -> None: ...


class Span(Protocol):
    """Blocks [first, last) of one model, loaded."""

    @property
    def first(self) -> int: ...

    @property
    def last(self) -> int: ...

    def open_cache(self, first: int, last: int, capacity: int) -> Cache:
        """Room for `capacity` positions of blocks [first, last) within this span."""

    async def run(self, cache: Cache, hidden: Buffer, position: int, count: int) -> bytes:
        """Run the cache's blocks over positions [position, position + count).

        `hidden` is float32[count, hidden_size]; so is the result. Positions from `position` on
        that the cache held before are overwritten: going back is sending a smaller position.
        A sub-range of the span is served too (the engine splits its session at that border).
        """

    async def close(self) -> None: ...


class Ends(Protocol):
    """Tokenizer, embedding and head: what only the asker runs."""

    @property
    def special_tokens(self) -> Sequence[str]:
        """Texts that `encode` takes for a control token of the model, wherever they stand."""

    def encode(self, text: str) -> list[int]:
        """Token ids, without a beginning-of-sequence token."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text; special tokens are left out."""

    async def prepare(self, ids: Sequence[int]) -> None:
        """Say that these will be embedded soon, a few at a time: what is read from storage for
        them is read once."""

    async def embed(self, ids: Sequence[int]) -> bytes:
        """float32[len(ids), hidden_size]. Where rows are read from storage it raises what their
        reader does, too."""

    async def head(self, hidden: Buffer, temperature: float, k: int) -> Candidates:
        """Of float32[hidden_size], the last position; at most `k` candidates. Greedy is k=1."""

    async def close(self) -> None: ...


class Engine(Protocol):
    @property
    def name(self) -> EngineName:
        """Of the blocks that are loaded from now on."""

    def names(self, manifest: Manifest) -> Sequence[EngineName]:
        """What it can be for this model, fastest first; further on they take less memory."""

    def use(self, name: EngineName) -> None:
        """Be one of `names` for the blocks loaded from now on."""

    async def load_span(self, manifest: Manifest, first: int, last: int, blob: BlobReader) -> Span:
        """Load piece by piece, as model/footprint.py says. Raises EngineError, or what `blob`
        raises."""

    async def load_ends(
        self,
        manifest: Manifest,
        blob: BlobReader,
        name: EngineName | None = None,
        rows: PieceReader | None = None,
    ) -> Ends:
        """Embedding and head, the latter as `name` would run it (by default as blocks are). With
        `rows`, which reads the embedding's file, only the rows asked for are read. That takes an
        `embedding_table`."""


class BlobReader(Protocol):
    """Brings one content-addressed file, from the store or any source, verified."""

    async def __call__(self, sha256: str, size: int) -> Any: ...


class PieceReader(Protocol):
    """Brings single pieces of one file, verified and open."""

    async def __call__(self, number: int) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One world, as the node sees it."""

    kind: HostKind
    clock: Clock
    keys: Keys
    transport: Transport
    engine: Engine
    store: Store
