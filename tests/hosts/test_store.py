"""Pieces by hash and values by name, on both hosts."""

from __future__ import annotations

import hashlib

import pytest

from pyodide_node.errors import IntegrityError, StoreError, Unreachable
from pyodide_node.hosts.base import Store
from tests.hosts.worlds import World, conforms

PIECE = 100_000
FILE = b"".join(hashlib.shake_256(bytes([number])).digest(PIECE) for number in range(4)) + b"end"
PIECES = [
    (hashlib.sha256(FILE[at : at + PIECE]).hexdigest(), len(FILE[at : at + PIECE]))
    for at in range(0, len(FILE), PIECE)
]
BLOB = bytes(range(256)) * 1000
SHA = hashlib.sha256(BLOB).hexdigest()
ALL = [(SHA, len(BLOB))]


async def pull(
    store: Store,
    url: str,
    pieces: list[tuple[str, int]] = ALL,
    *,
    offset: int | None = None,
    keep: bool = True,
) -> dict[str, bool]:
    """What came, and whether it was kept."""
    came: dict[str, bool] = {}
    await store.pull(url, offset, pieces, keep=keep, got=came.__setitem__)
    return came


@conforms
async def test_a_kept_piece_is_there_afterwards(world: World) -> None:
    store = (await world.host()).store
    url = world.publish("blob", BLOB)
    assert store.persistent
    assert not await store.has(SHA)
    assert await store.join(ALL) is None
    assert await store.read(*ALL[0]) is None
    assert await pull(store, url) == {SHA: True}
    assert await store.has(SHA)
    assert await store.join(ALL) == await store.join(ALL) == BLOB
    assert await store.read(*ALL[0]) == BLOB
    assert await store.held() == {SHA: len(BLOB)}
    await store.drop(SHA)
    assert not await store.has(SHA)
    await store.drop(SHA)


@conforms
async def test_a_piece_that_is_not_to_be_kept_is_there_until_it_is_joined(world: World) -> None:
    store = (await world.host()).store
    assert await pull(store, world.publish("b", BLOB), keep=False) == {SHA: False}
    assert await store.has(SHA)
    assert await store.read(*ALL[0]) == BLOB
    assert await store.held() == {}
    assert await store.join(ALL) == BLOB
    assert not await store.has(SHA)
    assert await store.join(ALL) is None


@conforms
async def test_a_piece_that_is_not_to_be_kept_may_be_dropped(world: World) -> None:
    store = (await world.host()).store
    await pull(store, world.publish("b", BLOB), keep=False)
    await store.drop(SHA)
    assert not await store.has(SHA)


@conforms
async def test_a_file_comes_in_pieces_and_is_joined_of_them(world: World) -> None:
    store = (await world.host()).store
    url = world.publish("file", FILE)
    first = await pull(store, url, PIECES[:2], offset=0)
    assert list(first) == [sha256 for sha256, _ in PIECES[:2]]
    assert await store.join(PIECES) is None
    assert all(await pull(store, url, PIECES[2:], offset=2 * PIECE))
    assert await store.join(PIECES) == FILE
    assert await store.held() == dict(PIECES)


@conforms
async def test_a_server_may_know_no_ranges(world: World) -> None:
    store = (await world.host()).store
    url = world.publish("file", FILE, ranges=False)
    assert not await store.pull(url, PIECE, PIECES[1:3], keep=True, got=lambda *told: None)
    assert [await store.has(sha256) for sha256, _ in PIECES] == [False, True, True, False, False]
    assert await store.pull(
        world.publish("f", FILE), PIECE, PIECES[1:3], keep=True, got=lambda *told: None
    )


@conforms
async def test_content_that_is_not_its_hash_is_refused(world: World) -> None:
    store = (await world.host()).store
    with pytest.raises(IntegrityError):
        await pull(store, world.publish("wrong", b"\1" + BLOB[1:]))
    with pytest.raises(IntegrityError):
        await store.take(SHA, BLOB[:-1], keep=True)
    assert await store.held() == {}
    assert not await store.has(SHA)


@conforms
async def test_what_came_before_a_wrong_piece_stays(world: World) -> None:
    store = (await world.host()).store
    wrong = bytearray(FILE)
    wrong[2 * PIECE] ^= 1
    with pytest.raises(IntegrityError):
        await pull(store, world.publish("wrong", bytes(wrong)), PIECES, offset=0)
    assert await store.held() == dict(PIECES[:2])


@conforms
async def test_what_came_before_an_answer_ended_stays(world: World) -> None:
    store = (await world.host()).store
    url = world.publish("short", FILE[: 3 * PIECE - 1])
    with pytest.raises(Unreachable):
        await pull(store, url, PIECES, offset=0)
    assert await store.held() == dict(PIECES[:2])
    with pytest.raises(Unreachable):
        await pull(store, world.publish("empty", b""))


@conforms
async def test_a_piece_of_a_peer_is_taken(world: World) -> None:
    store = (await world.host()).store
    assert await store.take(SHA, memoryview(BLOB), keep=True)
    assert await store.held() == {SHA: len(BLOB)}
    assert not await store.take(PIECES[0][0], FILE[:PIECE], keep=False)
    assert await store.join(PIECES[:1]) == FILE[:PIECE]
    assert await store.held() == {SHA: len(BLOB)}


@conforms
async def test_a_url_that_does_not_answer_is_unreachable(world: World) -> None:
    store = (await world.host()).store
    for url in (world.publish("here", b"") + "-not", world.nowhere("https") + "/blob"):
        with pytest.raises(Unreachable):
            await pull(store, url)
        with pytest.raises(Unreachable):
            await pull(store, url, PIECES, offset=0)
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
async def test_a_damaged_piece_is_dropped(world: World) -> None:
    host = await world.host()
    url = world.publish("b", BLOB)
    for read in (lambda: host.store.join(ALL), lambda: host.store.read(*ALL[0])):
        await pull(host.store, url)
        world.damage(host, SHA)
        assert await read() is None
        assert not await host.store.has(SHA)


@conforms
async def test_a_piece_of_another_size_is_not_read(world: World) -> None:
    store = (await world.host()).store
    await pull(store, world.publish("b", BLOB))
    assert await store.read(SHA, len(BLOB) - 1) is None
    await pull(store, world.publish("b", BLOB))
    assert await store.join([(SHA, len(BLOB) - 1)]) is None


@conforms
async def test_the_least_recently_used_comes_first(world: World) -> None:
    store = (await world.host()).store
    hashes = []
    for number in range(3):
        content = bytes([number]) * (number + 1)
        hashes.append(hashlib.sha256(content).hexdigest())
        url = world.publish(f"b{number}", content)
        await pull(store, url, [(hashes[-1], len(content))])
    assert list(await store.held()) == hashes
    await store.join([(hashes[0], 1)])
    assert await store.held() == {hashes[1]: 2, hashes[2]: 3, hashes[0]: 1}


@conforms
async def test_a_full_disk_keeps_nothing_and_stops_nobody(world: World) -> None:
    host = await world.host()
    url = world.publish("b", BLOB)
    with world.full(host):
        assert await pull(host.store, url) == {SHA: False}
        assert await host.store.join(ALL) == BLOB
        assert not await host.store.take(SHA, BLOB, keep=True)
        await host.store.drop(SHA)
        await host.store.put("name", BLOB)
    assert await host.store.held() == {}
    assert not await host.store.has(SHA)
    assert await host.store.get("name") == BLOB


@conforms
async def test_denied_storage_stops_nobody(world: World) -> None:
    store = (await world.host(denied=True)).store
    assert not store.persistent
    assert await pull(store, world.publish("b", BLOB)) == {SHA: False}
    assert await store.join(ALL) == BLOB
    assert not await store.has(SHA)
    assert await store.join(ALL) is None
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
