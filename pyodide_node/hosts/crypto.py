"""Keys in software, by `cryptography`: for every host that is not a browser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pyodide_node.errors import SealError
from pyodide_node.hosts.base import Agreement, Buffer, Cipher
from pyodide_node.model.locked import segment_nonce
from pyodide_node.model.manifest import PIECE

__all__ = ["SoftwareAgreement", "SoftwareCipher", "SoftwareKeys"]


class SoftwareCipher:
    """See `base.Cipher`."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    async def seal(self, nonce: bytes, plaintext: Buffer, associated: bytes) -> bytes:
        return self._aead.encrypt(nonce, plaintext, associated)

    async def open(self, nonce: bytes, ciphertext: Buffer, associated: bytes) -> bytes:
        try:
            return self._aead.decrypt(nonce, ciphertext, associated)
        except (InvalidTag, ValueError) as error:  # ValueError: too short to hold a tag
            raise SealError("a sealed packet is not authentic: open a new session") from error


class SoftwareAgreement:
    """See `base.Agreement`. `secret` is 32 random bytes."""

    def __init__(self, secret: bytes) -> None:
        self._private = X25519PrivateKey.from_private_bytes(secret)

    @property
    def public_key(self) -> bytes:
        return self._private.public_key().public_bytes_raw()

    async def derive(
        self, peer_public_key: bytes, salt: bytes, infos: Sequence[bytes]
    ) -> list[Cipher]:
        try:
            shared = self._private.exchange(X25519PublicKey.from_public_bytes(peer_public_key))
        except ValueError as error:  # of low order (RFC 7748, section 6.1), or not 32 bytes
            raise SealError("the other side's key agrees on nothing") from error
        return [
            SoftwareCipher(HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(shared))
            for info in infos
        ]


class SoftwareKeys:
    """See `base.Keys`. `seed` is the 32-byte Ed25519 private key (RFC 8032)."""

    def __init__(self, seed: bytes, random: Callable[[int], bytes]) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self._public = self._private.public_key().public_bytes_raw()
        self._random = random

    @property
    def public_key(self) -> bytes:
        return self._public

    async def sign(self, data: Buffer) -> bytes:
        return self._private.sign(data)

    async def verify(self, public_key: bytes, signature: bytes, data: Buffer) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(public_key).verify(signature, data)
        except (InvalidSignature, ValueError):
            return False
        return True

    async def agreement(self) -> Agreement:
        return SoftwareAgreement(self._random(32))

    async def unlock(self, key: bytes, file: int, blob: Any, first: int = 0) -> bytes:
        cipher, content = AESGCM(key), memoryview(blob)
        try:
            return b"".join(
                cipher.decrypt(segment_nonce(file, number), content[at : at + PIECE], None)
                for number, at in enumerate(range(0, len(content), PIECE), first)
            )
        except (InvalidTag, ValueError) as error:
            raise SealError("a file of this private model does not open with its key") from error

    def random(self, count: int) -> bytes:
        return self._random(count)
