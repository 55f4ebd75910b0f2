"""The software keys against the vectors of the RFCs."""

from __future__ import annotations

import hmac

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pyodide_node.hosts.crypto import SoftwareAgreement, SoftwareKeys


async def test_ed25519_signs_as_rfc_8032_says() -> None:
    """Section 7.1, test 2."""
    seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    keys = SoftwareKeys(seed, bytes)
    assert keys.public_key.hex() == (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    )
    assert (await keys.sign(b"\x72")).hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )


async def test_x25519_and_hkdf_are_those_of_the_rfcs() -> None:
    """RFC 7748, section 5.2, first vector; RFC 5869 by hand, as 32 bytes are one block of it."""
    scalar = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    point = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    shared = bytes.fromhex("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552")
    extracted = hmac.digest(b"salt", shared, "sha256")
    key = hmac.digest(extracted, b"info" + b"\1", "sha256")
    (cipher,) = await SoftwareAgreement(scalar).derive(point, b"salt", [b"info"])
    sealed = await cipher.seal(bytes(12), b"text", b"header")
    assert sealed == AESGCM(key).encrypt(bytes(12), b"text", b"header")
