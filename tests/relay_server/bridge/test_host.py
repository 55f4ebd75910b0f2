"""The bridge's host among others: they find each other, and hostile ones are refused."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

import psutil
import pytest

pytest.importorskip("libp2p", reason="no libp2p: build/setup.sh federation")

from libp2p.utils.varint import encode_uvarint, encode_varint_prefixed

from pyodide_node.errors import ConfigError, Unreachable
from relay_server import inbound
from relay_server.bridge import limits
from relay_server.bridge.host import DhtHost
from relay_server.bridge.messages import (
    Find,
    FoundAll,
    Item,
    Ping,
    Pong,
    Store,
    Stored,
    pack_call,
    unpack_answer,
)
from relay_server.bridge.values import REGULAR, key_of
from tests.relay_server.bridge.peers import Stranger, bridge_host, run, stranger, trio

ID = bytes(20)


async def call(who: Stranger, method: Any, data: bytes) -> bytes:
    raw = encode_varint_prefixed(pack_call(ID, b"peer", method, data))
    return unpack_answer(await who.say(raw, method), ID)


def test_what_one_peer_stores_another_finds() -> None:
    async def test() -> None:
        async with bridge_host() as host, bridge_host(host) as one, bridge_host(host) as other:
            assert await one.bootstrap() == 1
            assert await other.bootstrap() == 1
            assert {one.peer, other.peer} <= {peer for _, peer in host.table.nearest(ID, 5)}
            item = Item(key_of("k"), REGULAR, b"\1", time.time() + 60)
            assert await one.store([item]) == 1
            request = Find(keys=[item.key], node=other.table.own)
            answer = await other._call(host.peer, "rpc_find", request.pack())
            (found,) = FoundAll.unpack(answer).results
            assert (found.value, found.expires) == (b"\1", item.expires)
            assert [peer for _, peer in found.near] == [one.peer]

    run(test)


def test_without_first_peers_there_is_nobody_to_tell() -> None:
    async def test() -> None:
        async with bridge_host() as host:
            assert await host.bootstrap() == 0
            assert await host.store([Item(key_of("k"), REGULAR, b"", time.time() + 9)]) == 0

    run(test)


def test_a_ping_is_answered_and_pinged_back() -> None:
    async def test() -> None:
        async with bridge_host() as host, bridge_host(host) as other, stranger(host) as who:
            await other.bootstrap()
            data = await other._call(
                host.peer, "rpc_ping", Ping(node=other.table.own, validate=True).pack()
            )
            pong = Pong.unpack(data)
            assert (pong.node, pong.available) == (host.table.own, True)
            assert abs(pong.time - time.time()) < 3
            # This one does not answer pings itself.
            silent = await call(who, "rpc_ping", Ping(node=b"\1" * 20, validate=True).pack())
            assert not Pong.unpack(silent).available
            assert who.peer not in host.table

    run(test)


def test_a_peer_that_died_is_forgotten() -> None:
    async def test() -> None:
        async with bridge_host() as host:
            async with bridge_host(host) as other:
                await other.bootstrap()
                assert other.peer in host.table
            assert not await host.ping(other.peer)
            assert other.peer not in host.table

    run(test)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (encode_uvarint(limits.MESSAGE + 1), "at most 2097152 bytes"),
        (encode_uvarint(2**63), "at most 2097152 bytes"),
        (encode_varint_prefixed(b"\xff" * 50), "malformed"),
        (encode_varint_prefixed(b""), "something else"),
        (encode_varint_prefixed(pack_call(b"", b"", "rpc_find", b"\xff")), "malformed"),
        (
            encode_varint_prefixed(
                pack_call(b"", b"", "rpc_find", Find(keys=[bytes(20)] * 5000).pack())
            ),
            "5000 keys in one message; send at most 512",
        ),
    ],
    ids=["large", "huge", "garbage", "empty", "garbage within", "many"],
)
def test_a_hostile_call_is_told_why_it_is_refused(raw: bytes, said: str) -> None:
    async def test() -> None:
        async with bridge_host() as host, stranger(host) as who:
            with pytest.raises(Unreachable, match=said):
                unpack_answer(await who.say(raw), b"")
            assert host.door.refused.total() == 1
            # And the next is answered.
            found = FoundAll.unpack(await call(who, "rpc_find", Find(keys=[bytes(20)]).pack()))
            assert found.node == host.table.own

    run(test)


def test_records_that_have_expired_are_refused_by_themselves() -> None:
    async def test() -> None:
        async with bridge_host() as host, stranger(host) as who:
            items = [
                Item(key_of(str(life)), REGULAR, b"\1", time.time() + life)
                for life in (-1.0, 60.0, 10 * limits.LIFE)
            ]
            answer = await call(who, "rpc_store", Store(items=items).pack())
            assert Stored.unpack(answer).ok == [False, True, False]

    run(test)


def test_one_peer_cannot_keep_all_places() -> None:
    async def test() -> None:
        async with bridge_host() as host, stranger(host) as slow, stranger(host) as who:
            waiting = [await slow.open() for _ in range(limits.CALLS_PER_PEER)]
            for stream in waiting:
                await stream.write(b"\x80")  # half of a length
            with trio.fail_after(5):
                while host.door.busy[slow.peer] < limits.CALLS_PER_PEER:
                    await trio.lowlevel.checkpoint()
            raw = encode_varint_prefixed(pack_call(ID, b"", "rpc_find", Find(keys=[]).pack()))
            assert await slow.say(raw) == b""
            assert host.door.refused["Busy"] == 1
            assert await who.say(raw) != b""
            for stream in waiting:
                await stream.reset()

    run(test)


def test_a_flood_is_slowed_and_takes_bounded_memory() -> None:
    async def test() -> None:
        async with bridge_host() as host, stranger(host) as who:
            before = psutil.Process(os.getpid()).memory_info().rss
            items = [
                Item(key_of(str(number)), REGULAR, os.urandom(2000), time.time() + 60)
                for number in range(900)
            ]
            raw = encode_varint_prefixed(pack_call(ID, b"", "rpc_store", Store(items=items).pack()))
            answers = [await who.say(raw, "rpc_store") for _ in range(10)]
            assert answers[0]
            assert not answers[-1]
            assert host.door.refused["TooFast"] > 0
            assert host.responder.store.size <= limits.RECORD_BYTES
            assert psutil.Process(os.getpid()).memory_info().rss - before < 64 * 2**20

    run(test)


def test_places_of_connections_that_ended_are_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS", 3)
    monkeypatch.setattr(inbound, "_LOOK_EVERY", 0.01)

    async def test() -> None:
        async with bridge_host() as host:
            for _ in range(6):
                async with stranger(host) as who:
                    await call(who, "rpc_ping", Ping().pack())
                limiter = host._host.get_network()._inbound_limiter
                with trio.fail_after(10):
                    while limiter.borrowed_tokens:
                        await trio.lowlevel.checkpoint()

    run(test)


def test_peers_that_came_and_went_leave_nothing() -> None:
    async def test() -> None:
        async with bridge_host() as host, bridge_host(host) as known:
            await known.bootstrap()
            for _ in range(5):
                async with stranger(host) as who:
                    await call(who, "rpc_ping", Ping().pack())
            libp2p = host._host
            with trio.fail_after(10):
                while len(libp2p.get_connected_peers()) > 1:
                    await trio.lowlevel.checkpoint()
            host.forget()
            left = {peer.to_bytes() for peer in libp2p.get_peerstore().peer_ids()}
            assert left == {host.peer, known.peer}
            # libp2p itself would dial them again.
            assert not libp2p.get_network().auto_connector._started
            assert await host.ping(known.peer)

    run(test)


def test_a_port_that_is_taken_is_said_so() -> None:
    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            host = DhtHost(os.urandom(32), f"/ip4/127.0.0.1/tcp/{port}", "", [])
            with pytest.raises(ConfigError, match="choose another --port"):
                async with host.run():
                    pass

    run(test)
