"""Keys, store and transport in a tab; checked from outside where that tells more."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.runtime.conftest import InTab
from tests.runtime.server import Site
from tests.runtime.test_worker import DAMAGE

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

BLOB = bytes(range(256)) * 500
OTHER = b"other" * 1000


def test_keys_sign_and_seal(in_tab: InTab) -> None:
    got = in_tab("ports.py", part="keys")
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(got["public"]))
    key.verify(bytes.fromhex(got["signature"]), b"hello")


def test_the_identity_outlives_the_worker(in_tab: InTab) -> None:
    first = in_tab("ports.py", part="keys")
    assert in_tab("ports.py", part="keys", fresh=True)["public"] == first["public"]


def test_the_store_keeps_what_is_right_and_drops_what_rots(
    in_tab: InTab, site: Site, page: object
) -> None:
    site.instead |= {"/blob": BLOB, "/other": OTHER}
    entry = {"url": f"{site.origin}/blob", **described(BLOB)}
    other = {"url": f"{site.origin}/other", **described(OTHER)}
    in_tab("ports.py", part="store", other=other, **entry)
    again = in_tab("ports.py", part="held", fresh=True, **entry)
    assert again == {"held": {entry["sha256"]: len(BLOB)}, "loaded": True, "name": "b'value'"}
    page.evaluate(DAMAGE, "kwaainet-blobs")  # type: ignore[attr-defined]
    assert in_tab("ports.py", part="held", **entry)["loaded"] is False
    assert in_tab("ports.py", part="held", fresh=True, **entry)["held"] == {}


def test_nobody_there_is_unreachable(in_tab: InTab) -> None:
    in_tab("ports.py", part="transport", nowhere="ws://127.0.0.1:9/")


def described(content: bytes) -> dict[str, object]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def test_peer_connections_live_in_the_oldest_tab(in_tab: InTab) -> None:
    in_tab("peers.py")
