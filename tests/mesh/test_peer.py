"""Names of a node: known pairs of keys and names, and no key from what is no name."""

from __future__ import annotations

import base58
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyodide_node.errors import ProtocolError
from pyodide_node.mesh.peer import did_key, key_of_did, peer_id, public_key_of, short

keys = st.binary(min_size=32, max_size=32)

# did:key specification, "Ed25519 Test Vectors"; the peer id is go-libp2p's for the same key.
VECTOR_DID = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"
VECTOR_KEY = base58.b58decode(VECTOR_DID[len("did:key:z") :])[2:]


def test_a_did_is_the_one_of_the_specification() -> None:
    assert VECTOR_KEY.hex() == "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29"
    assert did_key(VECTOR_KEY) == VECTOR_DID


@given(key=keys)
def test_a_did_names_its_key(key: bytes) -> None:
    assert key_of_did(did_key(key)) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "did:key:z",
        VECTOR_DID[:-1],
        VECTOR_DID + "1",
        VECTOR_DID.replace("did:key:z6Mk", "did:key:z6LS"),
        VECTOR_DID.removeprefix("did:"),
        "did:web:example.org",
        "did:key:z0OIl",
    ],
)
def test_what_is_no_did_of_ours_names_no_key(text: str) -> None:
    with pytest.raises(ProtocolError):
        key_of_did(text)


@given(key=keys)
def test_a_peer_id_is_its_key_and_looks_as_libp2p_has_it(key: bytes) -> None:
    assert peer_id(key).startswith("12D3Koo")
    assert public_key_of(peer_id(key)) == key
    assert peer_id(key).endswith(short(key))


@given(one=keys, other=keys)
def test_two_keys_never_share_a_name(one: bytes, other: bytes) -> None:
    assert (peer_id(one) == peer_id(other)) == (one == other)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not base58 0OIl",
        "12D3Koo",
        "é",
        peer_id(bytes(32)) + "1",
        peer_id(bytes(32))[:-1],
        base58.b58encode(bytes.fromhex("122008011220") + bytes(32)).decode(),
        "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
    ],
)
def test_what_is_no_ed25519_peer_id_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match="not an Ed25519 peer id"):
        public_key_of(text)
