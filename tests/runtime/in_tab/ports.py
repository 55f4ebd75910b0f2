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
    await pieces(mine, given)
    other = given["other"]
    await pull(mine, other["url"], [(other["sha256"], other["size"])])
    assert list(await mine.held()) == [sha256, other["sha256"]]
    assert len(await mine.read(sha256, size) or b"") == size
    assert list(await mine.held()) == [other["sha256"], sha256]
    await mine.drop(other["sha256"])
    assert not await mine.has(other["sha256"])
    assert await mine.held() == {sha256: size}
    return {}


async def pieces(mine: BrowserStore, given: dict[str, Any]) -> None:
    """One file of a single piece stays behind."""
    url, sha256, size, wrong = given["url"], given["sha256"], given["size"], "0" * 64
    assert await raised(pull(mine, url, [(wrong, size)])) == IntegrityError.__name__
    assert await raised(pull(mine, url, [(sha256, size + 1)])) == Unreachable.__name__
    assert await raised(pull(mine, url + "-not", [(wrong, 5)])) == Unreachable.__name__
    assert await raised(mine.take(sha256, b"wrong", keep=True)) == IntegrityError.__name__
    assert await mine.join([(sha256, size)]) is None
    assert await pull(mine, url, [(sha256, size)], keep=False) == [(sha256, False)]
    assert await mine.held() == {}
    assert (await mine.join([(sha256, size)])).byteLength == size
    assert not await mine.has(sha256)
    file = [(sha256, size) for sha256, size in given["pieces"]]
    offset = file[0][1]
    for address, ranges in ((url, True), (given["rangeless"], False)):
        told: dict[str, bool] = {}
        exact = await mine.pull(address, offset, file[1:], keep=ranges, got=told.__setitem__)
        assert exact is ranges
        assert told == dict.fromkeys((name for name, _ in file[1:]), ranges)
        assert await mine.join(file) is None
        await mine.take(file[0][0], (await mine.fetch(url, size))[:offset], keep=ranges)
        assert (await mine.join(file)).byteLength == size
        for name, _ in file:
            await mine.drop(name)
    assert await mine.held() == {}
    assert await pull(mine, url, [(sha256, size)]) == [(sha256, True)]


async def pull(
    mine: BrowserStore, url: str, pieces: list[tuple[str, int]], keep: bool = True
) -> list[tuple[str, bool]]:
    came: list[tuple[str, bool]] = []
    await mine.pull(url, None, pieces, keep=keep, got=lambda *told: came.append(told))
    return came


async def resumed(bridge: Any, given: dict[str, Any]) -> dict[str, Any]:
    """A file whose server breaks off: what had come is not asked for again."""
    mine = BrowserStore(bridge.store)
    file = [(sha256, size) for sha256, size in given["pieces"]]
    failed = await raised(mine.pull(given["url"], 0, file, keep=True, got=lambda *told: None))
    left = [piece for piece in file if not await mine.has(piece[0])]
    offset = sum(size for _, size in file) - sum(size for _, size in left)
    await mine.pull(given["url"], offset, left, keep=True, got=lambda *told: None)
    whole = await mine.join(file)
    return {"failed": failed, "left": len(left), "size": whole.byteLength}


async def fetched(bridge: Any, given: dict[str, Any]) -> dict[str, Any]:
    """A file of which only what is absent is asked for."""
    mine = BrowserStore(bridge.store)
    file = [(sha256, size) for sha256, size in given["pieces"]]
    before, kept = await mine.held(), dict[str, bool]()
    for at, piece in enumerate(file):
        if piece[0] not in before:
            offset = sum(size for _, size in file[:at])
            await mine.pull(given["url"], offset, [piece], keep=True, got=kept.__setitem__)
    whole = await mine.join(file)
    return {
        "before": list(before),
        "kept": [sha256 for sha256, did in kept.items() if did],
        "asked": len(kept),
        "size": whole.byteLength,
    }


async def held(bridge: Any, given: dict[str, Any]) -> dict[str, Any]:
    mine = BrowserStore(bridge.store)
    loaded = await mine.read(given["sha256"], given["size"])
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
