"""Swarms over two relays that know each other; libp2p itself is tested in tests/federation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from pyodide_node.core import KwaaiNetCore
from pyodide_node.hosts.crypto import SoftwareKeys
from pyodide_node.hosts.simulated import virtual
from pyodide_node.hosts.simulated.clock import SimulatedClock
from pyodide_node.hosts.simulated.relay import RelayConnection
from pyodide_node.wire.relays import RelayInfo, announce_relay
from relay_server.federation.bulletin import Bulletin, Departed, encode_bulletin
from relay_server.federation.ledger import Changes, Ledger
from relay_server.hub import Hub
from relay_server.settings import RelaySettings
from tests.wire.keys import keys_of

from .swarm import HubSocket, Swarm, ask, swarm

ONE, TWO = "wss://one.test/mesh", "wss://two.test/mesh"


@dataclass
class Relay:
    url: str
    keys: SoftwareKeys
    record: bytes
    hub: Hub
    ledger: Ledger
    others: list[Relay] = field(default_factory=list)
    visitors: set[bytes] = field(default_factory=set)

    def say(self, bulletin: Bulletin) -> None:
        for other in self.others:
            now = other.hub._clock.wall()
            other.follow(other.ledger.take(self.keys.public_key, encode_bulletin(bulletin), now))

    def follow(self, changes: Changes) -> None:
        for node, home in changes.departed:
            self.hub.forget(node, home)
        for record, signed in changes.announced:
            self.hub.admit(record, signed)
        self.hub.tell_relays(
            [self.record, *(one.signed for one in self.ledger.relays)], aloud=changes.relays
        )

    def departed(self, key: bytes) -> None:
        self.say(Bulletin([], [], [Departed(key, 2**52)]))

    def kill(self, net: Swarm) -> None:
        """No word of it to anybody."""
        self.others = []
        net.network.kill(self.url)

    async def handle(self, connection: RelayConnection) -> None:
        host = self.url.split("/")[2]
        node = self.hub.connected(HubSocket(connection), host, connection.host)
        try:
            async for message in connection:
                self.hub.received(node, message)
        finally:
            self.hub.disconnected(node)


async def relay(url: str) -> Relay:
    keys, clock = keys_of(url), SimulatedClock(0.0)
    record = await announce_relay(keys, RelayInfo(url), clock.wall())
    hub = Hub(RelaySettings(federation="/ip4/127.0.0.1/tcp/0"), clock)
    made = Relay(url, keys, record, hub, Ledger(keys.public_key))
    hub.key = keys.public_key
    hub.announced = lambda key, signed: made.say(Bulletin([], [signed]))
    hub.departed = made.departed
    return made


@asynccontextmanager
async def federation() -> AsyncIterator[tuple[Swarm, Relay, Relay]]:
    async with swarm() as net:
        one, two = await relay(ONE), await relay(TWO)
        one.others, two.others = [two], [one]
        for each in (one, two):
            net.network.relay(each.url, each.handle)
            each.say(Bulletin([each.record]))
        net.hub = two.hub  # which knows everybody
        yield net, one, two


def home(core: KwaaiNetCore) -> str:
    client = core._mesh.relay
    return client.url if client is not None and client.connected else ""


def guest_of(core: KwaaiNetCore) -> list[str]:
    return [client.url for client in core._mesh.relays[1:]]


@pytest.mark.parametrize("path", ["relay", "auto"])
@pytest.mark.parametrize("dies", [ONE, TWO])
def test_an_answer_goes_on_when_either_relay_dies(path: str, dies: str) -> None:
    @virtual
    async def run() -> None:
        async with federation() as (net, one, two):
            ada = await net.node("ada", max_blocks=4, relays=(ONE,), path=path)
            bob = await net.node("bob", max_blocks=4, relays=(TWO,), path=path)
            await net.covered()
            assert (await ask(ada, 12)).ids == net.expected(12)
            assert guest_of(ada) + guest_of(bob), "one of them had to visit the other's"

            def kill(seen: int) -> None:
                if seen >= 3:
                    {ONE: one, TWO: two}[dies].kill(net)

            begun = asyncio.get_running_loop().time()
            answer = await ask(ada, 12, on_token=kill)
            assert answer.ids == net.expected(12)
            assert answer.reroutes <= 1
            assert asyncio.get_running_loop().time() - begun < 3, "a fraction of a second more"
            await asyncio.sleep(5)
            left = TWO if dies == ONE else ONE
            assert home(ada) == home(bob) == left
            hub = {ONE: one, TWO: two}[left].hub
            assert {entry.announcement.home for entry in hub.directory} == {hub.key}
            assert len(hub.directory) == 2
            assert (await ask(bob, 12)).ids == net.expected(12)

    run()


@virtual
async def test_stages_on_both_relays_pass_on_to_each_other() -> None:
    async with federation() as (net, one, _):
        ada = await net.node("ada", max_blocks=3, relays=(ONE,), path="relay")
        bob = await net.node("bob", max_blocks=3, relays=(TWO,), path="relay")
        cyd = await net.node("cyd", max_blocks=3, relays=(ONE,), path="relay")
        await net.covered()
        for core in (ada, bob, cyd):
            assert (await ask(core, 6)).ids == net.expected(6)

        def kill(seen: int) -> None:
            if seen >= 3:
                one.kill(net)

        assert (await ask(ada, 12, on_token=kill)).ids == net.expected(12)
        await asyncio.sleep(5)
        assert [home(core) for core in (ada, bob, cyd)] == [TWO] * 3
        assert len(one.hub) == 0


@virtual
async def test_a_node_that_moves_to_the_other_relay_is_found_there() -> None:
    async with federation() as (net, one, two):
        ada = await net.node("ada", max_blocks=4, relays=(ONE,))
        bob = await net.node("bob", max_blocks=4, relays=(TWO,))
        await net.covered()
        await bob.close()
        await asyncio.sleep(1)
        assert {len(each.hub.directory) for each in (one, two)} == {1}
        await net.node("bob", max_blocks=4, relays=(ONE,))
        await net.covered()
        assert (await ask(ada, 6)).ids == net.expected(6)
        assert (
            two.hub.directory.get(net.hosts["bob"].keys.public_key).announcement.home == one.hub.key
        )  # type: ignore[union-attr]


@virtual
async def test_a_relay_that_is_alone_again_is_not_left() -> None:
    """Restarted, it is dialled again by those whose home it was."""
    async with federation() as (net, one, _):
        ada = await net.node("ada", relays=(ONE,))
        one.kill(net)
        net.network.relay(ONE, one.handle)
        await asyncio.sleep(5)
        assert home(ada) == ONE


@virtual
async def test_a_record_on_its_way_while_its_node_moved_is_no_offence() -> None:
    async with federation() as (net, one, two):
        ada = await net.node("ada", relays=(ONE,))
        entry = one.hub.directory.get(net.hosts["ada"].keys.public_key)
        assert entry is not None
        ada._mesh.relay.relay = two.hub.key  # type: ignore[union-attr]
        ada._mesh.publish(entry.signed, two.hub.key)
        await asyncio.sleep(1)
        assert home(ada) == ONE
