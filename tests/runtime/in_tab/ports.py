"""Keys, store and transport of a tab, held to what hosts/base.py says."""

from __future__ import annotations

import json
from typing import Any

from pyodide_node.errors import (
    IntegrityError,
    KwaaiNetError,
    LocalError,
    SealError,
    StoreError,
    Unreachable,
)
from pyodide_node.hosts.base import PeerEvents
from pyodide_node.hosts.browser.keys import BrowserKeys
from pyodide_node.hosts.browser.store import BrowserStore
from pyodide_node.hosts.browser.transport import BrowserTransport


async def main(bridge: Any, argument: str) -> str:
    given = json.loads(argument)
    return json.dumps(await globals()[given["part"]](bridge, given))


async def raised(awaitable: Any) -> str:
    try:
        await awaitable
    except KwaaiNetError as error:
        return error.code
    return "nothing"


async def keys(bridge: Any, given: dict[str, Any]) -> dict[str, Any]:
    mine = BrowserKeys(bridge.keys)
    signature = await mine.sign(b"hello")
    assert await mine.verify(mine.public_key, signature, b"hello")
    assert await mine.verify(mine.public_key, signature, memoryview(b"xhello")[1:])
    assert not await mine.verify(mine.public_key, signature, b"hellp")
    assert not await mine.verify(b"short", b"", b"hello")
    assert len(mine.random(70_000)) == 70_000
    assert mine.random(16) != mine.random(16)
    a, b = await mine.agreement(), await mine.agreement()
    ours = await a.derive(b.public_key, b"salt", [b"one", b"two"])
    theirs = await b.derive(a.public_key, b"salt", [b"one", b"two"])
    sealed = await ours[0].seal(bytes(12), b"secret", b"header")
    assert len(sealed) == 6 + 16
    assert await theirs[0].open(bytes(12), sealed, b"header") == b"secret"
    for wrong in (
        theirs[1].open(bytes(12), sealed, b"header"),
        theirs[0].open(bytes(12), sealed, b"other"),
        theirs[0].open(bytes(12), sealed[:5], b"header"),
        a.derive(bytes(32), b"", [b"x"]),
        a.derive(b"short", b"", [b"x"]),
    ):
        assert await raised(wrong) == SealError.__name__
    # For the other side of the comparison: RFC vectors cannot be had, private keys stay inside.
    return {"public": mine.public_key.hex(), "signature": signature.hex()}


async def store(bridge: Any, given: dict[str, Any]) -> dict[str, Any]:
    mine = BrowserStore(bridge.store)
    url, sha256, size = given["url"], given["sha256"], given["size"]
    assert mine.persistent
    assert await mine.get("name") is None
    await mine.put("name", b"value")
    assert await mine.get("name") == b"value"
    assert len(await mine.fetch(url, size)) == size
    assert await raised(mine.fetch(url, size - 1)) == StoreError.__name__
    assert await raised(mine.fetch(url + "-not", size)) == Unreachable.__name__
    wrong = "0" * 64
    for hash_, length in ((wrong, size), (sha256, size - 1), (sha256, size + 1)):
        failed = await raised(mine.download(url, hash_, length, keep=True))
        assert failed == IntegrityError.__name__, failed
    assert await raised(mine.download(url + "-not", wrong, 5, keep=True)) == Unreachable.__name__
    assert await mine.load(sha256, size) is None
    blob = await mine.download(url, sha256, size, keep=False)
    assert blob.byteLength == size
    assert await mine.held() == {}
    await mine.download(url, sha256, size, keep=True)
    other = given["other"]
    await mine.download(other["url"], other["sha256"], other["size"], keep=True)
    assert list(await mine.held()) == [sha256, other["sha256"]]
    assert (await mine.load(sha256, size)).byteLength == size
    assert list(await mine.held()) == [other["sha256"], sha256]
    await mine.drop(other["sha256"])
    assert not await mine.has(other["sha256"])
    assert await mine.held() == {sha256: size}
    return {}


async def held(bridge: Any, given: dict[str, Any]) -> dict[str, Any]:
    mine = BrowserStore(bridge.store)
    loaded = await mine.load(given["sha256"], given["size"])
    return {
        "held": await mine.held(),
        "loaded": loaded is not None,
        "name": str(await mine.get("name")),
    }


async def transport(bridge: Any, given: dict[str, Any]) -> dict[str, Any]:
    mine = BrowserTransport(bridge)
    never: list[Any] = []
    dialling = mine.dial(given["nowhere"], never.append, never.append)
    assert await raised(dialling) == Unreachable.__name__
    events = PeerEvents(
        signal=never.append, opened=lambda: None, received=never.append, closed=never.append
    )
    try:
        mine.connect(initiator=True, ice_servers=[], events=events)
    except Unreachable:  # there is no page behind the harness
        pass
    else:
        raise LocalError("a connection without a page")
    assert never == []
    return {}
