"""Records that have an owner are the owner's alone, by hivemind's rule."""

from __future__ import annotations

import base64
import dataclasses

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from relay_server.bridge import limits
from relay_server.bridge.messages import Item
from relay_server.bridge.signatures import allowed
from relay_server.bridge.values import key_of, pack

SIGNED = Item(
    key_of("k"),
    bytes.fromhex(
        "c501866d655b6f776e65723a7373682d727361204141414142334e7a61433179633245414141414441514142"
        "41414142415143717168614a6b59434451394778656a317a67324c3176456a62316457627074595a69336d35"
        "2b595076627665686b4b304b4666474c3753683352335a533572425776747a4d536f422b6552706e53684451"
        "667871494f652f6a33645a457157694676724253683944515758627646642f6d512b34493261534967463149"
        "61436b34665656394647424d4a304e38447a6b56784635626744555752674742523345502f41723271427335"
        "48674133664b70664c635737593035513374784a3141375147304b7a796a4d69494948764a564c5451725a43"
        "584447655a7332343139547154376266616f46382b6e445879354d394d6a5a6c49566331773731665a657962"
        "4535427153537362364170766b362f3655547179652f4d6f77512f746d6d773430434149742b5a6750776133"
        "373065774657363346374776792b5673347231632b412b44464d55624262514173664d49735471585d"
    ),
    bytes.fromhex(
        "015b7369676e61747572653a52637a596e6131504356626b77354f7a3673523862705a696b7773666f772b2f"
        "57494d5a3532547a6845656868664a534c62313036544a535564745856424b716c5355796142382b49546d57"
        "345a545044456d386162695a6945625733616f664d796d3855354f44615369497778476c5641632f78337766"
        "694335346f30382b63476934736e67637a7a4b575379574e4149395534596b5a73635a5231524b647a435668"
        "4c5259786c723343413242494757734a6d45782b435a656754716c2b6a66384b763051486f52776a66563164"
        "644d5249322b6b614c497135457469762b65537a3362376938723933586a584e35467578487876676d506277"
        "4d57586d6d456a354d6e353676535a69557a707767544966526f593766744851524659306a79442f6e613666"
        "563538356c4577456269616149517a39366350794b515861444e7a3470747a6f4862306668465034534d386a"
        "57773d3d5d"
    ),
    4e9,
)
"""By hivemind 1.1.12's RSASignatureValidator."""


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def owned(key: rsa.RSAPrivateKey, value: bytes = b"\1") -> Item:
    """A record that `key` owns, signed."""
    ssh = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    item = Item(key_of("k"), pack(b"me[owner:" + ssh + b"]"), value, 4e9)
    salt = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.MAX_LENGTH)
    signature = key.sign(pack((item.key, item.subkey, value, 4e9)), salt, hashes.SHA256())
    ended = value + b"[signature:" + base64.b64encode(signature) + b"]"
    return dataclasses.replace(item, value=ended)


def test_hiveminds_own_signature_holds() -> None:
    assert allowed(SIGNED)


def test_what_nobody_owns_anybody_writes() -> None:
    assert allowed(Item(key_of("k"), pack("peer"), b"\1", 1.0))


def test_the_owner_may_write(key: rsa.RSAPrivateKey) -> None:
    assert allowed(owned(key))


def test_nobody_else_may(key: rsa.RSAPrivateKey) -> None:
    item = owned(key)
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert not allowed(dataclasses.replace(item, value=owned(other).value))
    assert not allowed(dataclasses.replace(item, value=b"\1"))
    assert not allowed(dataclasses.replace(item, value=b"\2" + item.value[1:]))
    assert not allowed(dataclasses.replace(item, expires=5e9))
    assert not allowed(dataclasses.replace(item, key=key_of("l")))
    assert not allowed(dataclasses.replace(item, value=item.value + item.value))


@pytest.mark.parametrize("owner", [b"ssh-rsa AAAA", b"ssh-rsa", b"\0", b"ssh-rsa " + b"A" * 300])
def test_an_owner_who_is_no_key_owns_what_nobody_may_write(owner: bytes) -> None:
    value = b"\1[signature:AAAA]"
    assert not allowed(Item(key_of("k"), pack(b"[owner:" + owner + b"]"), value, 1.0))


def test_a_key_of_another_kind_owns_nothing() -> None:
    public = Ed25519PrivateKey.generate().public_key()
    ssh = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    value = b"\1[signature:AAAA]"
    assert not allowed(Item(key_of("k"), pack(b"[owner:" + ssh + b"]"), value, 1.0))


def test_two_owners_are_none(key: rsa.RSAPrivateKey) -> None:
    item = owned(key)
    both = pack(item.subkey + b"[owner:ssh-rsa AAAA]")
    assert not allowed(dataclasses.replace(item, subkey=both))


def test_a_value_full_of_marks_costs_nothing(key: rsa.RSAPrivateKey) -> None:
    marks = b"[signature:" * (limits.SIGNED // 11)
    assert not allowed(dataclasses.replace(owned(key), value=marks))
    assert not allowed(dataclasses.replace(owned(key), value=bytes(limits.SIGNED + 1)))
