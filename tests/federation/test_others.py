"""What js-libp2p can look up and hear, and what it cannot make relays believe."""

from __future__ import annotations

import time
from functools import partial
from hashlib import sha256

import msgspec
import pytest

from pyodide_node.mesh.announcement import Announcement, announce
from pyodide_node.mesh.peer import public_key_of
from pyodide_node.wire.messages import RelayList
from pyodide_node.wire.records import check_record
from pyodide_node.wire.relays import RelayInfo, announce_relay, decode_relay
from relay_server.entry import verify
from relay_server.federation.bulletin import (
    Bulletin,
    Departed,
    decode_bulletin,
    encode_bulletin,
)
from relay_server.federation.values import value_key
from tests.federation.client import Client as Peer
from tests.federation.client import client
from tests.federation.conftest import RelayProcess, World, eventually
from tests.relay_server.client import Client, announcement
from tests.wire.keys import keys_of

pytestmark = pytest.mark.slow

REFUSED = 'bulletins_total{kind="refused"}'


def at_home(relay: RelayProcess, free: int = 4096) -> Announcement:
    """An announcement of a node that is on this relay."""
    home = public_key_of(relay.id)
    return msgspec.structs.replace(announcement(), home=home, free_positions=free)


async def test_js_libp2p_looks_up_what_a_node_announced_and_hears_of_the_next(world: World) -> None:
    one, two = await world.pair()
    async with Client(f"{one.url.replace('http', 'ws')}/mesh", keys_of("alice")) as alice:
        await alice.expect(RelayList)
        said = await alice.publish(at_home(one))
        await eventually(lambda: two.knows(1, records=1))
        async with client(two) as other:
            assert await other.get(value_key("announcement", alice.key)) == said
            assert await other.get(value_key("announcement", keys_of("bob").public_key)) is None
            about = await other.get(value_key("relay", public_key_of(one.id)))
            assert about is not None
            url = decode_relay(check_record(verify, about, time.time())).url
            assert url == alice.url

            newer = await alice.publish(at_home(one, free=1))
            while newer not in decode_bulletin(await other.heard()).records:
                pass
            await eventually(lambda: _holds(other, alice.key, newer))
    await eventually(lambda: two.knows(1, records=0))


async def _holds(other: Peer, key: bytes, record: bytes) -> bool:
    return await other.get(value_key("announcement", key)) == record


async def test_hostile_values_are_refused_by_the_dht(world: World) -> None:
    relay = await world.relay("one")
    alice, now = keys_of("alice"), time.time()
    name = value_key("announcement", alice.public_key)
    good = await announce(alice, at_home(relay), now)
    hostile = {
        "wrong signature": (name, good[:-1] + bytes([good[-1] ^ 1])),
        "expired": (name, await announce(alice, at_home(relay), now - 3600)),
        "from the future": (name, await announce(alice, at_home(relay), now + 3600)),
        "oversized": (name, good + bytes(100_000)),
        "another's name": (value_key("announcement", keys_of("bob").public_key), good),
        "another kind": (value_key("relay", alice.public_key), good),
        "no namespace of ours": ("/pk/" + "00" * 34, b"anything"),
    }
    # Two, for who puts a value keeps it too.
    async with client(relay) as writer, client(relay) as reader:
        for why, (key, value) in hostile.items():
            assert await writer.put(key, value) == 0, why
            assert await reader.get(key) is None, why
        assert await writer.put(name, good) == 1
        assert await writer.put(name, await announce(alice, at_home(relay), now - 60)) == 0
        assert await reader.get(name) == good
        newer = await announce(alice, at_home(relay), now + 1)
        assert await writer.put(name, newer) == 1
        assert await reader.get(name) == newer
    assert (await relay.metrics())["values_refused_total"] >= 6


async def test_gossip_of_a_hostile_relay_harms_no_node_but_its_own(world: World) -> None:
    """It is a relay like any other by its key, and speaks the protocol as it should."""
    one, two = await world.pair()
    mallory, seed = keys_of("mallory"), sha256(b"mallory").digest()
    async with (
        Client(f"{one.url.replace('http', 'ws')}/mesh", keys_of("alice")) as alice,
        client(one, seed) as hostile,
    ):
        await alice.expect(RelayList)
        said = await alice.publish(at_home(one))
        await eventually(lambda: two.knows(1, records=1))
        now = time.time()
        me = await announce_relay(mallory, RelayInfo("wss://mallory.example/mesh"), now)
        own = msgspec.structs.replace(announcement(), home=mallory.public_key)
        nowhere, info = announcement(), RelayInfo("wss://eve.example/mesh")
        bob, bob_key = await announce(keys_of("bob"), own, now), keys_of("bob").public_key
        hostile_ones = {
            "another's node": Bulletin([me], [said]),
            "no relay's node": Bulletin([me], [await announce(keys_of("bob"), nowhere, now)]),
            "an expired one": Bulletin([me], [await announce(keys_of("bob"), own, now - 3600)]),
            "a forged one": Bulletin([me], [bob[:-1] + bytes([bob[-1] ^ 1])]),
            "another relay": Bulletin([await announce_relay(keys_of("eve"), info, now)]),
            "too much": Bulletin([me], [bob + bytes(2048)]),
        }
        for bulletin in hostile_ones.values():
            refused = (await one.metrics()).get(REFUSED, 0.0)
            await hostile.publish(encode_bulletin(bulletin))
            await eventually(partial(_refused, one, refused))
        assert await one.knows(1, records=1)
        # What it may do: be a relay, and speak of its own node, until it says that it is gone.
        await hostile.publish(encode_bulletin(Bulletin([me], [bob], [Departed(alice.key, 2**50)])))
        await eventually(lambda: one.knows(2, records=2))
        await eventually(lambda: two.knows(2, records=2))
        await hostile.publish(encode_bulletin(Bulletin([], [], [Departed(bob_key, 2**50)])))
        await eventually(lambda: two.knows(2, records=1))
        assert await one.knows(2, records=1)


async def _refused(relay: RelayProcess, before: float) -> bool:
    return (await relay.metrics()).get(REFUSED, 0.0) > before
