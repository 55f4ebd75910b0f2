"""Content by hash and values by name, on both hosts."""

from __future__ import annotations

import hashlib

import pytest

from pyodide_node.errors import IntegrityError, StoreError, Unreachable
from tests.hosts.worlds import World, conforms

BLOB = bytes(range(256)) * 1000
SHA = hashlib.sha256(BLOB).hexdigest()


@conforms
async def test_a_kept_blob_is_there_afterwards(world: World) -> None:
    store = (await world.host()).store
    url = world.publish("blob", BLOB)
    assert store.persistent
    assert not await store.has(SHA)
    assert await store.load(SHA, len(BLOB)) is None
    assert await store.download(url, SHA, len(BLOB), keep=True) == BLOB
    assert await store.has(SHA)
    assert await store.load(SHA, len(BLOB)) == BLOB
    assert await store.held() == {SHA: len(BLOB)}
    await store.drop(SHA)
    assert not await store.has(SHA)
    await store.drop(SHA)


@conforms
async def test_a_blob_is_kept_only_if_asked(world: World) -> None:
    store = (await world.host()).store
    assert await store.download(world.publish("b", BLOB), SHA, len(BLOB), keep=False) == BLOB
    assert await store.held() == {}


@conforms
async def test_content_that_is_not_its_hash_is_refused(world: World) -> None:
    store = (await world.host()).store
    tampered = b"\1" + BLOB[1:]
    for number, content in enumerate((tampered, BLOB + b"\0", BLOB[:-1], b"")):
        url = world.publish(f"wrong-{number}", content)
        with pytest.raises(IntegrityError):
            await store.download(url, SHA, len(BLOB), keep=True)
    assert await store.held() == {}


@conforms
async def test_a_url_that_does_not_answer_is_unreachable(world: World) -> None:
    store = (await world.host()).store
    for url in (world.publish("here", b"") + "-not", world.nowhere("https") + "/blob"):
        with pytest.raises(Unreachable):
            await store.download(url, SHA, len(BLOB), keep=True)
        with pytest.raises(Unreachable):
            await store.fetch(url, 100)


@conforms
async def test_a_fetch_is_bounded(world: World) -> None:
    store = (await world.host()).store
    url = world.publish("small", b"12345")
    assert await store.fetch(url, 5) == b"12345"
    with pytest.raises(StoreError):
        await store.fetch(url, 4)


@conforms
async def test_a_damaged_blob_is_dropped(world: World) -> None:
    host = await world.host()
    await host.store.download(world.publish("b", BLOB), SHA, len(BLOB), keep=True)
    world.damage(host, SHA)
    assert await host.store.load(SHA, len(BLOB)) is None
    assert not await host.store.has(SHA)


@conforms
async def test_a_blob_of_another_size_is_not_loaded(world: World) -> None:
    store = (await world.host()).store
    await store.download(world.publish("b", BLOB), SHA, len(BLOB), keep=True)
    assert await store.load(SHA, len(BLOB) - 1) is None


@conforms
async def test_the_least_recently_used_comes_first(world: World) -> None:
    store = (await world.host()).store
    hashes = []
    for number in range(3):
        content = bytes([number]) * (number + 1)
        hashes.append(hashlib.sha256(content).hexdigest())
        url = world.publish(f"b{number}", content)
        await store.download(url, hashes[-1], len(content), keep=True)
    assert list(await store.held()) == hashes
    await store.load(hashes[0], 1)
    assert await store.held() == {hashes[1]: 2, hashes[2]: 3, hashes[0]: 1}


@conforms
async def test_a_full_disk_keeps_nothing_and_stops_nobody(world: World) -> None:
    host = await world.host()
    url = world.publish("b", BLOB)
    with world.full(host):
        assert await host.store.download(url, SHA, len(BLOB), keep=True) == BLOB
        await host.store.put("name", BLOB)
    assert await host.store.held() == {}
    assert not await host.store.has(SHA)
    assert await host.store.get("name") == BLOB


@conforms
async def test_denied_storage_stops_nobody(world: World) -> None:
    store = (await world.host(denied=True)).store
    assert not store.persistent
    url = world.publish("b", BLOB)
    assert await store.download(url, SHA, len(BLOB), keep=True) == BLOB
    assert not await store.has(SHA)
    assert await store.load(SHA, len(BLOB)) is None
    assert await store.held() == {}
    await store.drop(SHA)
    await store.put("name", b"value")
    assert await store.get("name") == b"value"


@conforms
async def test_values_are_found_by_any_name(world: World) -> None:
    store = (await world.host()).store
    for name in ("name", "../name", "a/b", "ünïcode", "", "."):
        assert await store.get(name) is None
        await store.put(name, name.encode())
        await store.put(name, name.encode() + b"!")
        assert await store.get(name) == name.encode() + b"!"
