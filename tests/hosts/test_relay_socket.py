"""Sockets to relays, on both hosts."""

from __future__ import annotations

import asyncio

import pytest

from pyodide_node.errors import Unreachable
from pyodide_node.hosts.base import Host, RelaySocket
from pyodide_node.wire.limits import LOW_WATER, MESSAGE
from tests.hosts.worlds import RelaySide, World, conforms


class Dialled:
    """A socket and all that happened to it."""

    socket: RelaySocket

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self.reasons: list[str] = []
        self.ended = asyncio.Event()

    @classmethod
    async def dial(cls, host: Host, url: str) -> Dialled:
        self = cls()
        self.socket = await host.transport.dial(url, self.inbox.put_nowait, self._close)
        return self

    def _close(self, reason: str) -> None:
        self.reasons.append(reason)
        self.ended.set()


def ignore(_: object) -> None:
    pass


async def echo(side: RelaySide) -> None:
    async for message in side:
        await side.send(message)


@conforms
async def test_messages_come_back_whole_and_in_order(world: World) -> None:
    dialled = await Dialled.dial(await world.host(), await world.relay(echo))
    sent = [b"", b"one", bytes(100_000), bytes(MESSAGE), b"last"]
    for message in sent:
        scratch = bytearray(message)
        dialled.socket.send(scratch)
        scratch[:] = b"\xff" * len(scratch)
    assert [await dialled.inbox.get() for _ in sent] == sent
    await dialled.socket.close()
    assert dialled.reasons == ["closed here"]


@conforms
async def test_a_relay_that_is_not_there_is_unreachable(world: World) -> None:
    transport = (await world.host()).transport
    for url in (world.nowhere("wss"), "nonsense", "https://relay", ""):
        with pytest.raises(Unreachable):
            await transport.dial(url, ignore, ignore)


@conforms
async def test_a_closed_socket_drops_what_is_sent(world: World) -> None:
    dialled = await Dialled.dial(await world.host(), await world.relay(echo))
    await dialled.socket.close()
    dialled.socket.send(b"into the void")
    assert dialled.socket.buffered == 0
    await dialled.socket.drain()
    await dialled.socket.close()
    assert dialled.reasons == ["closed here"]
    assert dialled.inbox.empty()


@conforms
async def test_what_was_sent_before_a_close_arrives(world: World) -> None:
    arrived: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def note(side: RelaySide) -> None:
        async for message in side:
            arrived.put_nowait(message)
        arrived.put_nowait(None)

    dialled = await Dialled.dial(await world.host(), await world.relay(note))
    for number in range(20):
        dialled.socket.send(bytes([number]) * 50_000)
    await dialled.socket.close()
    got = [await arrived.get() for _ in range(21)]
    assert got == [*(bytes([number]) * 50_000 for number in range(20)), None]


@conforms
async def test_a_relay_that_closes_is_heard_once(world: World) -> None:
    async def one(side: RelaySide) -> None:
        await side.send(b"goodbye")

    dialled = await Dialled.dial(await world.host(), await world.relay(one))
    await dialled.ended.wait()
    assert dialled.inbox.get_nowait() == b"goodbye"
    dialled.socket.send(b"into the void")
    await dialled.socket.drain()
    await dialled.socket.close()
    assert len(dialled.reasons) == 1


@conforms
async def test_a_sender_waits_until_enough_has_left(world: World) -> None:
    reading = asyncio.Event()
    finished: asyncio.Queue[int] = asyncio.Queue()

    async def late(side: RelaySide) -> None:
        await reading.wait()
        total = 0
        async for message in side:
            total += len(message)
        finished.put_nowait(total)

    dialled = await Dialled.dial(await world.host(), await world.relay(late))
    for _ in range(10):
        dialled.socket.send(bytes(MESSAGE))
    assert dialled.socket.buffered >= LOW_WATER
    reading.set()
    await dialled.socket.drain()
    assert dialled.socket.buffered < LOW_WATER
    await dialled.socket.close()
    assert await finished.get() == 10 * MESSAGE


@conforms
async def test_a_close_frees_who_waits(world: World) -> None:
    async def never(side: RelaySide) -> None:
        await release.wait()

    release = asyncio.Event()
    dialled = await Dialled.dial(await world.host(), await world.relay(never))
    for _ in range(10):
        dialled.socket.send(bytes(MESSAGE))
    waiting = asyncio.create_task(dialled.socket.drain())
    closing = asyncio.create_task(dialled.socket.close())
    await waiting
    release.set()
    await closing
    assert len(dialled.reasons) == 1
