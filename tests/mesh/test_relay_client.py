"""The connection to a relay that does not keep to its lines: told why, and tried again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pyodide_node.errors import Unreachable
from pyodide_node.hosts.base import Buffer
from pyodide_node.hosts.simulated import SimulatedNetwork, simulated_host, virtual
from pyodide_node.hosts.simulated.relay import RelayConnection
from pyodide_node.mesh.relay_client import RelayClient
from pyodide_node.wire.frames import encode, fragments, parse
from pyodide_node.wire.messages import (
    Challenge,
    Gone,
    Hello,
    IceServer,
    Message,
    Ping,
    Pong,
    Refused,
    Welcome,
    decode,
    hello_bytes,
    to_frame,
)

URL = "wss://Relay.test/mesh"
Script = Callable[["Relay"], Coroutine[Any, Any, None]]


class Relay:
    """One connection, from the relay's side."""

    def __init__(self, connection: RelayConnection) -> None:
        self.connection = connection
        self._messages = connection.__aiter__()
        self._sequence = 0

    def say(self, message: Message, limit: int | None = None) -> None:
        frame = to_frame(message, sequence=self._sequence)
        self._sequence += 1
        for data in [encode(frame)] if limit is None else fragments(frame, limit):
            self.connection.send(data)

    async def hear(self) -> Message:
        return decode(parse(await anext(self._messages)))

    async def enter(self) -> Hello:
        self.say(Challenge(bytes(32)))
        hello = await self.hear()
        assert isinstance(hello, Hello)
        self.say(Welcome(["stun:relay.test:3478"]))
        return hello

    async def stay(self) -> None:
        async for _ in self._messages:
            pass


class World:
    def __init__(self) -> None:
        self.network = SimulatedNetwork()
        self.got: list[Message] = []
        self.states: list[bool] = []
        self.visits = 0
        self.client: RelayClient

    def received(self, message: Message, payload: Buffer) -> None:
        self.got.append(message)


@asynccontextmanager
async def client(script: Script, urls: Sequence[str] = (URL,)) -> AsyncIterator[World]:
    world = World()

    async def handle(connection: RelayConnection) -> None:
        world.visits += 1
        await script(Relay(connection))

    world.network.relay(URL, handle)
    host = simulated_host(world.network, "ada")
    world.client = RelayClient(host, urls, world.received, world.states.append)
    world.client.start()
    try:
        yield world
    finally:
        await world.client.close()


@virtual
async def test_it_proves_its_key_to_the_host_that_it_dialled() -> None:
    hellos: list[Hello] = []

    async def script(relay: Relay) -> None:
        hellos.append(await relay.enter())
        await relay.stay()

    async with client(script) as world:
        await world.client.entered(5)
        (hello,) = hellos
        keys = simulated_host(world.network, "ada").keys
        assert (hello.public_key, hello.audience) == (keys.public_key, "relay.test")
        data = hello_bytes(bytes(32), "relay.test")
        assert await keys.verify(hello.public_key, hello.signature, data)
        assert world.client.ice_servers == [IceServer("stun:relay.test:3478")]
        assert world.states == [True]


@virtual
async def test_it_answers_pings_and_measures_with_its_own() -> None:
    heard: list[Message] = []

    async def script(relay: Relay) -> None:
        await relay.enter()
        relay.say(Ping(7))
        while True:
            heard.append(message := await relay.hear())
            if isinstance(message, Ping):
                relay.say(Pong(message.token))

    async with client(script) as world:
        await asyncio.sleep(45)
        assert Pong(7) in heard
        assert sum(isinstance(one, Ping) for one in heard) == 3
        assert world.client.rtt == pytest.approx(0.020, abs=0.001)
        assert world.got == []


@virtual
async def test_messages_cut_in_pieces_or_repeated_are_taken_once() -> None:
    async def script(relay: Relay) -> None:
        relay.say(Challenge(bytes(32)), limit=30)
        await relay.hear()
        relay.say(Welcome([]))
        relay.say(Gone(bytes(32)), limit=30)
        relay._sequence -= 1
        relay.say(Gone(bytes(32)))
        await relay.stay()

    async with client(script) as world:
        await asyncio.sleep(1)
        assert world.got == [Gone(bytes(32))]


async def speaks_out_of_turn(relay: Relay) -> None:
    relay.say(Welcome([]))
    await relay.stay()


async def does_not_welcome(relay: Relay) -> None:
    relay.say(Challenge(bytes(32)))
    await relay.hear()
    relay.say(Pong(1))
    await relay.stay()


async def refuses(relay: Relay) -> None:
    relay.say(Refused("Full", "come back tomorrow"))
    await relay.stay()


async def hangs_up(relay: Relay) -> None:
    relay.say(Challenge(bytes(32)))


async def says_nothing(relay: Relay) -> None:
    await relay.stay()


async def babbles(relay: Relay) -> None:
    relay.connection.send(b"<html>" * 10)
    await relay.stay()


async def refuses_later(relay: Relay) -> None:
    await relay.enter()
    relay.say(Refused("Idle", "you were silent"))
    await relay.connection.close()


async def babbles_later(relay: Relay) -> None:
    await relay.enter()
    relay.connection.send(bytes(20))
    await relay.stay()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (speaks_out_of_turn, "did not begin with a challenge"),
        (does_not_welcome, "did not welcome"),
        (refuses, "come back tomorrow"),
        (hangs_up, "closed the connection"),
        (says_nothing, "did not finish the handshake"),
        (babbles, "frame version"),
        (refuses_later, "you were silent"),
        (babbles_later, "frame version"),
    ],
)
def test_a_relay_that_does_not_keep_to_its_lines_is_told_of_and_tried_again(
    script: Script, reason: str
) -> None:
    @virtual
    async def run() -> None:
        async with client(script) as world:
            await asyncio.sleep(100)
            assert reason in world.client.last_error
            assert not world.client.connected
            assert 3 <= world.visits <= 40
            with pytest.raises(Unreachable, match=r"no relay answers .* try another relay"):
                await world.client.entered(0)

    run()


@virtual
async def test_without_a_relay_nothing_is_sent() -> None:
    async with client(says_nothing) as world:
        await asyncio.sleep(1)
        assert not world.client.send(Gone(bytes(32)))
        await world.client.drain()
        with pytest.raises(Unreachable, match="no answer"):
            await world.client.entered(0)


@virtual
async def test_silence_is_noticed_although_the_socket_stands() -> None:
    async def script(relay: Relay) -> None:
        await relay.enter()
        await relay.stay()

    async with client(script) as world:
        await asyncio.sleep(55)
        assert world.states == [True]
        await asyncio.sleep(10)
        assert world.states[:2] == [True, False]
        assert world.client.last_error == "the relay fell silent"


@virtual
async def test_of_several_relays_the_next_is_tried() -> None:
    async def script(relay: Relay) -> None:
        await relay.enter()
        await relay.stay()

    async with client(script, ["wss://down.test/mesh", URL]) as world:
        await world.client.entered(5)
        assert world.client.url == URL
