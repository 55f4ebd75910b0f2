"""Identity, signatures and sealing, on both hosts."""

from __future__ import annotations

import pytest

from pyodide_node.errors import SealError
from tests.hosts.worlds import World, conforms

NONCE = bytes(12)


@conforms
async def test_an_identity_outlives_its_host(world: World) -> None:
    first, again, other = [(await world.host(name)).keys for name in ("ada", "ada", "ben")]
    assert first.public_key == again.public_key != other.public_key
    assert len(first.public_key) == 32


@conforms
async def test_a_signature_holds_for_its_key_and_data_only(world: World) -> None:
    ada, ben = (await world.host("ada")).keys, (await world.host("ben")).keys
    signature = await ada.sign(memoryview(b"data"))
    assert len(signature) == 64
    assert await ben.verify(ada.public_key, signature, bytearray(b"data"))
    assert not await ben.verify(ada.public_key, signature, b"date")
    assert not await ben.verify(ben.public_key, signature, b"data")


@conforms
async def test_verify_says_no_to_nonsense_and_never_raises(world: World) -> None:
    keys = (await world.host()).keys
    signature = await keys.sign(b"data")
    for public_key in (b"", bytes(31), bytes(33), bytes(32), b"\xff" * 32):
        assert not await keys.verify(public_key, signature, b"data")
    for nonsense in (b"", bytes(64), signature[:-1], signature + b"\0", b"\xff" * 64):
        assert not await keys.verify(keys.public_key, nonsense, b"data")


@conforms
async def test_two_agreements_derive_the_same_ciphers(world: World) -> None:
    mine = await (await world.host("ada")).keys.agreement()
    theirs = await (await world.host("ben")).keys.agreement()
    infos = [b"up", b"down"]
    one = await mine.derive(theirs.public_key, b"salt", infos)
    other = await theirs.derive(mine.public_key, b"salt", infos)
    for ours, same in zip(one, other, strict=True):
        sealed = await ours.seal(NONCE, memoryview(b"secret"), b"header")
        assert len(sealed) == len(b"secret") + 16
        assert await same.open(NONCE, sealed, b"header") == b"secret"
    with pytest.raises(SealError):
        await other[1].open(NONCE, await one[0].seal(NONCE, b"secret", b""), b"")
    (salted,) = await mine.derive(theirs.public_key, b"other", [b"up"])
    with pytest.raises(SealError):
        await other[0].open(NONCE, await salted.seal(NONCE, b"secret", b""), b"")


@conforms
async def test_a_changed_packet_does_not_open(world: World) -> None:
    keys = (await world.host()).keys
    agreement, peer = await keys.agreement(), await keys.agreement()
    (cipher,) = await agreement.derive(peer.public_key, b"", [b""])
    sealed = await cipher.seal(NONCE, b"secret", b"header")
    flipped = bytes([sealed[0] ^ 1]) + sealed[1:]
    for nonce, packet, header in [
        (NONCE, flipped, b"header"),
        (NONCE, sealed[:-1], b"header"),
        (NONCE, b"", b"header"),
        (NONCE, sealed, b"heeder"),
        (b"\1" * 12, sealed, b"header"),
    ]:
        with pytest.raises(SealError):
            await cipher.open(nonce, packet, header)


@conforms
async def test_a_key_of_low_order_is_refused(world: World) -> None:
    agreement = await (await world.host()).keys.agreement()
    assert len(agreement.public_key) == 32
    for weak in (bytes(32), b"\1" + bytes(31), bytes(31)):
        with pytest.raises(SealError):
            await agreement.derive(weak, b"", [b""])


@conforms
async def test_random_bytes_differ(world: World) -> None:
    keys = (await world.host()).keys
    assert len({keys.random(16) for _ in range(100)}) == 100
    assert keys.random(0) == b""
