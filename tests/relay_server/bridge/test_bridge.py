"""What the bridge announces, renews and takes back, by a clock that the test turns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

trio = pytest.importorskip("trio", reason="no libp2p: build/setup.sh federation")
pytest.importorskip("libp2p", reason="no libp2p: build/setup.sh federation")

from pyodide_node.errors import Unreachable  # noqa: E402
from relay_server.bridge.bridge import Bridge  # noqa: E402
from relay_server.bridge.feed import Served  # noqa: E402
from relay_server.bridge.messages import Item  # noqa: E402
from relay_server.bridge.peers import PeerTable  # noqa: E402
from relay_server.bridge.responder import Responder  # noqa: E402
from relay_server.bridge.settings import BridgeSettings  # noqa: E402
from relay_server.bridge.values import key_of, pack  # noqa: E402

ID = "ab" * 32
OFFLINE = pack((0, 0.0, {}))


class Host:
    """Keeps what it should store."""

    name = "12D3us"

    def __init__(self, now: Callable[[], float]) -> None:
        self.responder = Responder(PeerTable(bytes(20)), now)
        self.stored: list[Sequence[Item]] = []
        self.peers = 1

    async def bootstrap(self) -> int:
        return self.peers

    def forget(self) -> None:
        pass

    async def store(self, items: Sequence[Item]) -> int:
        if self.peers:
            self.stored.append(items)
        return len(items) if self.peers else 0


class World:
    """A bridge between a map that the test writes and a DHT that keeps all."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.nodes: list[int] | None = [1, 1]
        self.said: list[str] = []
        self.host = Host(lambda: self.time)
        host: Any = self.host
        settings = BridgeSettings(relay="http://relay.example.org/")
        self.bridge = Bridge(settings, host, self.said.append, self.read, lambda: self.time)

    def read(self, relay: str, models: int) -> list[Served]:
        assert relay == "http://relay.example.org"
        if self.nodes is None:
            raise Unreachable("the relay is gone")
        return [Served(ID, "", self.nodes, [1.0] * len(self.nodes))] if any(self.nodes) else []

    async def after(self, seconds: float) -> list[Item]:
        """What the look after so many seconds stored."""
        self.time += seconds
        before = len(self.host.stored)
        await self.bridge.look()
        return [item for items in self.host.stored[before:] for item in items]


def run(test: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        await test(World())

    trio.run(main)


def key(block: int) -> bytes:
    return key_of(f"kwaainet-{ID[:12]}.{block}")


def test_announcements_are_renewed_before_they_expire() -> None:
    async def test(world: World) -> None:
        first = await world.after(0)
        assert [item.key for item in first] == [key(0), key(1), key_of("_petals.models")]
        assert {item.expires for item in first} == {1300.0}
        assert await world.after(60) == []
        again = await world.after(60)
        assert [item.key for item in again] == [item.key for item in first]
        assert {item.expires for item in again} == {1420.0}
        assert world.said == ["2 blocks announced, 0 taken back"]

    run(test)


def test_what_changes_is_announced_at_once_and_what_is_gone_taken_back() -> None:
    async def test(world: World) -> None:
        await world.after(0)
        world.nodes = [1, 0, 1]
        items = {item.key: item for item in await world.after(15)}
        assert items.keys() == {key(0), key(1), key(2), key_of("_petals.models")}
        assert [block for block in range(3) if items[key(block)].value == OFFLINE] == [1]
        assert items[key(1)].expires > 1300.0  # else the older record would stay
        assert world.said[-1] == "2 blocks announced, 1 taken back"
        world.nodes = [0]
        assert {item.value for item in await world.after(15)} == {OFFLINE}
        assert await world.after(500) == []

    run(test)


def test_a_relay_that_restarts_is_waited_for_and_one_that_is_gone_is_not() -> None:
    async def test(world: World) -> None:
        await world.after(0)
        world.nodes = None
        assert await world.after(150) == []
        assert await world.after(140) == []
        assert [item.value for item in await world.after(20)] == [OFFLINE, OFFLINE]
        assert world.said.count("the relay is gone") == 1
        world.nodes = [1]
        assert len(await world.after(15)) == 2

    run(test)


def test_without_peers_it_tries_again_at_every_look() -> None:
    async def test(world: World) -> None:
        world.host.peers = 0
        assert await world.after(0) == []
        assert await world.after(15) == []
        assert world.said[1:] == ["nobody has the announcements: no first peer answers"]
        world.host.peers = 1
        assert len(await world.after(15)) == 3

    run(test)


def test_at_the_end_all_is_taken_back() -> None:
    async def test(world: World) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.bridge.run)
            with trio.fail_after(10):
                while not world.host.stored:
                    await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert [item.value for item in world.host.stored[-1]] == [OFFLINE, OFFLINE]

    run(test)


def test_our_records_are_forgotten_when_they_are_over() -> None:
    async def test(world: World) -> None:
        await world.after(0)
        world.nodes = [0]
        await world.after(15)
        world.nodes = [0, 0, 1]
        await world.after(400)
        assert world.host.responder._own.keys() == {key(2), key_of("_petals.models")}

    run(test)
