"""Identity and sealing by WebCrypto; private keys never come into Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyodide.ffi import to_js

from pyodide_node.errors import LocalError, SealError
from pyodide_node.hosts.base import Agreement, Buffer, Cipher

from .errors import awaited

__all__ = ["BrowserKeys"]


class BrowserKeys:
    """See `base.Keys`."""

    def __init__(self, js: Any) -> None:
        self._js = js
        self._public: bytes = js.publicKey.to_bytes()

    @property
    def public_key(self) -> bytes:
        return self._public

    async def sign(self, data: Buffer) -> bytes:
        return _bytes(await awaited(self._js.sign(data), LocalError))

    async def verify(self, public_key: bytes, signature: bytes, data: Buffer) -> bool:
        return bool(await self._js.verify(public_key, signature, data))

    async def agreement(self) -> Agreement:
        return _Agreement(await awaited(self._js.agreement(), LocalError))

    async def unlock(self, key: bytes, file: int, blob: Any, first: int = 0) -> Any:
        opened = await awaited(self._js.unlock(key, file, to_js(blob), first), SealError)
        return _bytes(opened.whole()) if isinstance(blob, bytes) else opened

    def random(self, count: int) -> bytes:
        return _bytes(self._js.random(count))


class _Agreement:
    def __init__(self, js: Any) -> None:
        self._js = js
        self._public: bytes = js.publicKey.to_bytes()

    @property
    def public_key(self) -> bytes:
        return self._public

    async def derive(
        self, peer_public_key: bytes, salt: bytes, infos: Sequence[bytes]
    ) -> list[Cipher]:
        secret = await awaited(self._js.derive(peer_public_key, salt), SealError)
        return [_Cipher(await awaited(secret.cipher(info), SealError)) for info in infos]


class _Cipher:
    def __init__(self, js: Any) -> None:
        self._js = js

    async def seal(self, nonce: bytes, plaintext: Buffer, associated: bytes) -> bytes:
        return _bytes(await awaited(self._js.seal(nonce, plaintext, associated), SealError))

    async def open(self, nonce: bytes, ciphertext: Buffer, associated: bytes) -> bytes:
        return _bytes(await awaited(self._js.open(nonce, ciphertext, associated), SealError))


def _bytes(buffer: Any) -> bytes:
    content: bytes = buffer.to_bytes()
    return content
