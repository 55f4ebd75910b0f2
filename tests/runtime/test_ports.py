"""Keys, store and transport in a tab; checked from outside where that tells more."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from playwright.sync_api import Page

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
    site.instead |= {"/blob": BLOB, "/other": OTHER, "/rangeless": BLOB}
    site.rangeless.add("/rangeless")
    entry = {"url": f"{site.origin}/blob", **described(BLOB)}
    other = {"url": f"{site.origin}/other", **described(OTHER)}
    more = {"rangeless": f"{site.origin}/rangeless", "pieces": pieces(BLOB, 50_000)}
    in_tab("ports.py", part="store", other=other, **entry, **more)
    again = in_tab("ports.py", part="held", fresh=True, **entry)
    assert again == {"held": {entry["sha256"]: len(BLOB)}, "loaded": True, "name": "b'value'"}
    page.evaluate(DAMAGE, "kwaainet-blobs")  # type: ignore[attr-defined]
    assert in_tab("ports.py", part="held", **entry)["loaded"] is False
    assert in_tab("ports.py", part="held", fresh=True, **entry)["held"] == {}


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_download_is_taken_up_where_it_ended(
    in_tab: InTab, site: Site, page: object, ranges: bool
) -> None:
    """What was verified before the cut is not sent again by a server that knows ranges."""
    content = hashlib.shake_256(b"file").digest(8 << 20)
    site.instead["/file"] = content
    site.cut["/file"] = (4 << 20) + 1000
    if not ranges:
        site.rangeless.add("/file")
    listed = pieces(content, 1 << 20)
    got = in_tab("ports.py", part="resumed", url=f"{site.origin}/file", pieces=listed)
    assert (got["failed"], got["size"]) == ("Unreachable", len(content))
    assert 4 <= got["left"] < 8
    again = (got["left"] << 20) if ranges else len(content)
    assert site.sent["/file"] == (4 << 20) + 1000 + again


def test_a_full_disk_keeps_what_it_has_and_takes_the_rest_later(
    in_tab: InTab, site: Site, page: Page
) -> None:
    content = hashlib.shake_256(b"file").digest(8 << 20)
    site.instead["/file"] = content
    entry = {"url": f"{site.origin}/file", "pieces": pieces(content, 1 << 20)}
    in_tab("ports.py", part="keys")  # what a worker keeps besides is there
    usage = page.evaluate("navigator.storage.estimate().then((all) => all.usage)")
    quota = {"origin": site.origin, "quotaSize": usage + (9 << 19)}
    devtools = page.context.new_cdp_session(page)
    devtools.send("Storage.overrideQuotaForOrigin", quota)
    full = in_tab("ports.py", part="fetched", **entry)
    assert (full["asked"], full["size"]) == (8, len(content))  # the rest of it was in memory
    assert 0 < len(full["kept"]) < 8
    devtools.send("Storage.overrideQuotaForOrigin", {"origin": site.origin})
    roomy = in_tab("ports.py", part="fetched", fresh=True, **entry)
    assert sorted(roomy["before"]) == sorted(full["kept"])
    assert roomy["asked"] == len(roomy["kept"]) == 8 - len(full["kept"])
    assert site.sent["/file"] == len(content) + (roomy["asked"] << 20)


def test_nobody_there_is_unreachable(in_tab: InTab) -> None:
    in_tab("ports.py", part="transport", nowhere="ws://127.0.0.1:9/")


def pieces(content: bytes, size: int) -> list[tuple[str, int]]:
    cut = (content[at : at + size] for at in range(0, len(content), size))
    return [(hashlib.sha256(piece).hexdigest(), len(piece)) for piece in cut]


def described(content: bytes) -> dict[str, object]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def test_peer_connections_live_in_the_oldest_tab(in_tab: InTab) -> None:
    in_tab("peers.py")
