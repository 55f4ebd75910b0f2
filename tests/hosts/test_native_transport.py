"""What only real sockets can get wrong."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from pyodide_node.errors import Unreachable
from pyodide_node.hosts.base import PeerEvents, Signal
from pyodide_node.hosts.native import NativeTransport
from pyodide_node.wire.limits import SOCKET_MESSAGE
from pyodide_node.wire.messages import IceServer
from tests.hosts.worlds import run_native


async def meet(
    handler: Callable[[ServerConnection], Awaitable[None]], received: Callable[[bytes], None]
) -> str:
    """Dial a server of `handler`; returns why the socket closed."""
    reasons: asyncio.Queue[str] = asyncio.Queue()
    async with serve(handler, "127.0.0.1", 0, compression=None, close_timeout=1) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"ws://127.0.0.1:{port}"
        await NativeTransport().dial(url, received, reasons.put_nowait)
        return await reasons.get()


def test_a_message_too_large_closes_the_socket() -> None:
    async def flood(connection: ServerConnection) -> None:
        await connection.send(bytes(SOCKET_MESSAGE + 1))
        await connection.wait_closed()

    async def main() -> None:
        got: list[bytes] = []
        assert "1009" in await meet(flood, got.append)
        assert got == []

    run_native(main())


def test_a_stun_server_that_is_down_costs_a_second_at_most() -> None:
    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            said: asyncio.Queue[Signal] = asyncio.Queue()
            peer = NativeTransport().connect(
                initiator=True,
                ice_servers=[IceServer(f"stun:127.0.0.1:{silent.getsockname()[1]}")],
                events=PeerEvents(
                    signal=said.put_nowait, opened=print, received=print, closed=print
                ),
            )
            async with asyncio.timeout(4):
                assert (await said.get()).kind == "offer"
            await peer.close()

    run_native(main())


def test_one_that_is_closed_while_it_asks_for_candidates_leaves_nothing_running() -> None:
    async def main() -> None:
        wrong: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent,
            socket.create_server(("127.0.0.1", 0)) as mute,
        ):
            silent.bind(("127.0.0.1", 0))
            servers = [f"stun:127.0.0.1:{silent.getsockname()[1]}"]
            servers += [f"turn:127.0.0.1:{silent.getsockname()[1]}"]
            servers += [f"turn:127.0.0.1:{mute.getsockname()[1]}?transport=tcp"]
            ended: asyncio.Queue[str] = asyncio.Queue()
            peer = NativeTransport().connect(
                initiator=True,
                ice_servers=[IceServer(url, "name", "word") for url in servers],
                events=PeerEvents(
                    signal=print, opened=print, received=print, closed=ended.put_nowait
                ),
            )
            await asyncio.to_thread(silent.recv, 100)
            await peer.close()
            assert await ended.get() == "closed here"
            # aioice would ask again after half a second, and after one.
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert [task for task in left if "executor" not in str(task)] == []
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.2):
                    await ended.get()
        assert wrong == []

    run_native(main())


def test_an_ice_server_that_is_none_is_unreachable() -> None:
    events = PeerEvents(signal=print, opened=print, received=print, closed=print)

    async def main() -> None:
        for initiator in (True, False):
            with pytest.raises(Unreachable):
                NativeTransport().connect(
                    initiator=initiator, ice_servers=[IceServer("http://x")], events=events
                )

    run_native(main())


def test_text_is_not_for_us() -> None:
    async def chat(connection: ServerConnection) -> None:
        await connection.send("text")
        await connection.send(b"bytes")

    async def main() -> None:
        got: list[bytes] = []
        assert await meet(chat, got.append) == "closed by the relay"
        assert got == [b"bytes"]

    run_native(main())


def test_a_connection_that_breaks_has_a_reason() -> None:
    async def drop(connection: ServerConnection) -> None:
        connection.transport.abort()

    async def main() -> None:
        got: list[bytes] = []
        assert "connection lost" in await meet(drop, got.append)

    run_native(main())


async def test_a_callback_that_fails_does_not_end_the_socket() -> None:
    async def twice(connection: ServerConnection) -> None:
        await connection.send(b"one")
        await connection.send(b"two")

    failures: list[str] = []
    got: list[bytes] = []

    def received(message: bytes) -> None:
        got.append(message)
        raise RuntimeError("a bug")

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(str(context["exception"])))
    assert await meet(twice, received) == "closed by the relay"
    assert got == [b"one", b"two"]
    assert failures == ["a bug", "a bug"]
