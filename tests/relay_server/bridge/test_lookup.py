"""A lookup finds the nearest peers of a whole network, and ends whatever peers answer."""

from __future__ import annotations

import hashlib
import random

import pytest

from pyodide_node.errors import ProtocolError
from relay_server.bridge import limits
from relay_server.bridge.lookup import Lookup
from relay_server.bridge.messages import Found
from relay_server.bridge.peers import PeerTable, distance

OWN = bytes(20)


def digest(text: str) -> bytes:
    return hashlib.sha1(text.encode(), usedforsecurity=False).digest()


class Network:
    """Peers that know some of the others each, as Kademlia's tables have it."""

    def __init__(self, count: int) -> None:
        draw = random.Random(7)
        self.ids = {b"peer%d" % number: digest(f"peer{number}") for number in range(count)}
        self.tables = {peer: PeerTable(node) for peer, node in self.ids.items()}
        for table in self.tables.values():
            for peer in draw.sample(sorted(self.ids), count):
                table.heard(self.ids[peer], peer, 0.0)
        self.dead: set[bytes] = set()
        self.calls = 0

    def run(self, keys: list[bytes]) -> Lookup:
        seeds = [(node, peer) for peer, node in list(self.ids.items())[:3]]
        lookup = Lookup(keys, seeds, OWN)
        while step := lookup.next():
            peer, wanted = step
            self.calls += 1
            if peer in self.dead:
                lookup.failed(peer)
                continue
            table = self.tables[peer]
            found = [Found(near=table.nearest(key, limits.BUCKET)) for key in wanted]
            lookup.answered(peer, wanted, found)
        return lookup

    def nearest(self, key: bytes) -> list[bytes]:
        alive = self.ids.keys() - self.dead
        return sorted(alive, key=lambda peer: distance(self.ids[peer], key))[: limits.REPLICAS]


def test_it_finds_the_nearest_of_all() -> None:
    network = Network(300)
    keys = [digest(f"model.{block}") for block in range(40)]
    lookup = network.run(keys)
    for key in keys:
        assert lookup.nearest(key) == network.nearest(key)
    assert network.calls < limits.LOOKUP_CALLS


def test_dead_peers_are_passed_over() -> None:
    network = Network(100)
    network.dead = {b"peer%d" % number for number in range(10, 100, 3)}
    key = digest("model.0")
    assert network.run([key]).nearest(key) == network.nearest(key)


def test_nobody_is_asked_twice_for_one_key() -> None:
    lookup = Lookup([digest("a"), digest("b")], [(digest("p"), b"p")], OWN)
    step = lookup.next()
    assert step is not None
    assert step == (b"p", [digest("a"), digest("b")])
    assert lookup.next() is None


def test_peers_that_tell_of_ever_nearer_ones_do_not_keep_it_for_ever() -> None:
    key = digest("key")
    lookup = Lookup([key], [(digest("p"), b"p")], OWN)
    calls = 0
    while step := lookup.next():
        peer, wanted = step
        calls += 1
        near = (int.from_bytes(key) ^ (1 << 150) - calls).to_bytes(20)
        found = [(near, b"%d-%d" % (calls, copy)) for copy in range(limits.BUCKET)]
        lookup.answered(peer, wanted, [Found(near=found)])
    assert calls == limits.LOOKUP_CALLS
    assert len(lookup.told_by) <= limits.LOOKUP_CALLS * limits.BUCKET


def test_we_are_not_asked_ourselves() -> None:
    lookup = Lookup([digest("a")], [(OWN, b"us")], OWN)
    assert lookup.next() is None


def test_an_answer_for_other_keys_counts_as_none() -> None:
    key = digest("a")
    lookup = Lookup([key], [(digest("p"), b"p")], OWN)
    assert lookup.next() == (b"p", [key])
    with pytest.raises(ProtocolError, match="another number of keys"):
        lookup.answered(b"p", [key], [])
    assert lookup.nearest(key) == []
