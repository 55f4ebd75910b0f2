"""Private models: their weight files open with a key, and only some are given it.

Manifest, hashes and delivery are as of any model (model/locked.py). The manifest names the
keepers: nodes of the model's owner that hold the key and give it, over the sealed link between
the two, to peers that the owner has granted it to. Those keep it in memory only.

This protects weights, at rest and on the way. It does not hide them from a peer that was granted
the key, and activations still leak what they leak (docs/ARCHITECTURE.md).
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from pyodide_node.delivery.catalog import Model
from pyodide_node.errors import NotGranted, Unreachable
from pyodide_node.hosts.base import BlobReader, Host, PieceReader
from pyodide_node.mesh.peer import did_key
from pyodide_node.model.locked import KEY_BYTES, file_numbers, key_check
from pyodide_node.model.manifest import Manifest
from pyodide_node.wire.malformed import MALFORMED
from pyodide_node.wire.messages import KeyReply, KeyRequest, Message

__all__ = [
    "Grant",
    "KeyKeeper",
    "decode_grants",
    "encode_grants",
    "grants_name",
    "key_name",
    "unlocking",
    "unlocking_piece",
]

_ANSWER: Final = 10.0
"""Seconds that a keeper has to answer: a link may have to be sealed first."""
_WAITING: Final = 64
"""Requests looked up at once; who asks beyond it asks again."""


class Grant(Struct, frozen=True):
    """A peer that may have a model's key until `expires`, in seconds since 1970; None: for good."""

    peer: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    expires: Annotated[int, Meta(ge=0)] | None = None


def key_name(model_id: str) -> str:
    """Under which the owner's store has the key."""
    return f"model-key/{model_id}"


def grants_name(model_id: str) -> str:
    """Under which the owner's store has the list of grants."""
    return f"model-grants/{model_id}"


def encode_grants(grants: list[Grant]) -> bytes:
    return msgspec.json.encode(grants)


def decode_grants(data: bytes | None) -> list[Grant]:
    """Nobody, when there is no list or it cannot be read."""
    try:
        return msgspec.json.decode(data or b"[]", type=list[Grant])
    except MALFORMED:
        return []


def unlocking(host: Host, manifest: Manifest, key: bytes, read: BlobReader) -> BlobReader:
    """Reads as `read` does, with locked files opened. Raises SealError besides."""
    numbers = file_numbers(manifest)

    async def opened(sha256: str, size: int) -> Any:
        blob = await read(sha256, size)
        if sha256 not in numbers:
            return blob
        return await host.keys.unlock(key, numbers[sha256], blob)

    return opened


def unlocking_piece(
    host: Host, manifest: Manifest, key: bytes, sha256: str, read: PieceReader
) -> PieceReader:
    """The same of single pieces of the locked file of this hash."""
    file = file_numbers(manifest)[sha256]

    async def opened(number: int) -> bytes:
        plain: bytes = await host.keys.unlock(key, file, await read(number), number)
        return plain

    return opened


class KeyKeeper:
    """Asks for a model's key, and gives those that this node keeps.

    `send(peer, message)` may raise Unreachable.
    """

    def __init__(self, host: Host, send: Callable[[bytes, Message], None]) -> None:
        self._host = host
        self._send = send
        self._waiting: dict[tuple[bytes, bytes], asyncio.Future[KeyReply]] = {}
        self._answering: set[asyncio.Task[None]] = set()

    async def key(self, model: Model) -> bytes:
        """The key of a private model. Raises NotGranted, Unreachable."""
        private = model.manifest.private
        assert private is not None
        own = await self._host.store.get(key_name(model.id))
        if own is not None and _fits(own, private.key_check):
            return own
        problem: NotGranted | Unreachable = Unreachable("this private model has no keeper")
        for keeper in (bytes.fromhex(one) for one in private.keepers):
            try:
                reply = await self._ask(keeper, bytes.fromhex(model.id))
            except Unreachable as error:
                problem = error
                continue
            if _fits(reply.key, private.key_check):
                return reply.key
            problem = NotGranted(
                f"the model {model.manifest.name} is private and this node was not granted it; ask"
                f" its owner to run: kwaainet model grant {model.manifest.name}"
                f" {did_key(self._host.keys.public_key)}",
                model=model.id,
                keeper=keeper,
            )
        raise problem

    def take(self, peer: bytes, message: Message) -> None:
        match message:
            case KeyReply(model):
                waiting = self._waiting.get((peer, model))
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
            case KeyRequest(model) if len(self._answering) < _WAITING:
                task = asyncio.ensure_future(self._answer(peer, model))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)

    async def close(self) -> None:
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)

    async def _ask(self, keeper: bytes, model: bytes) -> KeyReply:
        waiting: asyncio.Future[KeyReply] = asyncio.get_running_loop().create_future()
        self._waiting[keeper, model] = waiting
        try:
            self._send(keeper, KeyRequest(model))
            async with asyncio.timeout(_ANSWER):
                return await waiting
        except TimeoutError:
            raise Unreachable(
                f"the keeper of this private model does not answer ({did_key(keeper)}); it must be"
                " on the same relay: try again when its owner's node is up",
                peer=keeper,
            ) from None
        finally:
            self._waiting.pop((keeper, model), None)

    async def _answer(self, peer: bytes, model: bytes) -> None:
        store, model_id = self._host.store, model.hex()
        grants = decode_grants(await store.get(grants_name(model_id)))
        now = self._host.clock.wall()
        granted = any(
            grant.peer == peer.hex() and (grant.expires is None or now < grant.expires)
            for grant in grants
        )
        key = await store.get(key_name(model_id)) if granted else None
        try:
            self._send(peer, KeyReply(model, key or b""))
        except Unreachable:
            return  # it left


def _fits(key: bytes, check: str) -> bool:
    return len(key) == KEY_BYTES and hmac.compare_digest(key_check(key), check)
