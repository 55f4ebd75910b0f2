"""TURN: what nodes are given, and the real coturn as docs/NAT.md configures it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import shutil
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aioice import stun
from aioice.turn import UDP_TRANSPORT, TurnClientUdpProtocol, create_turn_endpoint

from pyodide_node.errors import ConfigError
from pyodide_node.wire.messages import Challenge, IceServer, IceServers, Welcome
from relay_server.settings import RelaySettings
from relay_server.turn import TurnAccess, turn_access
from tests.lab.places import coturn_config
from tests.relay_server.client import PATIENCE
from tests.relay_server.fakes import FakeNode, World

SECRET = "8b1f0c6f5f0e4f6f9d1d7c1b2a3f4e5d"
TURN = "turn:turn.example:3478"
KEY = bytes(range(32))


def with_turn(folder: Path, **more: float) -> RelaySettings:
    file = folder / "secret"
    file.write_text(f"{SECRET}\n")
    return RelaySettings(turn_servers=(TURN,), turn_secret_file=file, **more)  # type: ignore[arg-type]


def access(*servers: str) -> TurnAccess:
    return TurnAccess(servers or (TURN,), SECRET.encode(), 600.0)


# --- what a node is given -----------------------------------------------------------------


def test_credentials_are_coturns_rest_form() -> None:
    (server,) = access().for_node(KEY, 1_790_000_000.7)
    until, _, name = server.username.partition(":")
    assert (server.url, int(until)) == (TURN, 1_790_000_600)
    mac = hmac.new(SECRET.encode(), server.username.encode(), hashlib.sha1).digest()
    assert base64.b64decode(server.credential) == mac
    assert KEY.hex()[:8] not in name


def test_a_node_has_one_name_for_quotas_and_others_have_others() -> None:
    def name(key: bytes, now: float) -> str:
        return access().for_node(key, now)[0].username.partition(":")[2]

    assert name(KEY, 0) == name(KEY, 5000)
    assert name(KEY, 0) != name(bytes(32), 0)


def test_what_is_printed_holds_no_credential(tmp_path: Path) -> None:
    (server,) = access().for_node(KEY, 0)
    assert server.credential not in repr(IceServers([server]))
    assert server.username not in repr(IceServers([server]))
    assert SECRET not in repr(with_turn(tmp_path))


async def test_only_a_node_that_proved_its_key_is_told(tmp_path: Path) -> None:
    world = World(with_turn(tmp_path))
    stranger = FakeNode(world, "stranger")
    assert [type(message) for message in stranger.take()] == [Challenge]
    node = FakeNode(world, "node")
    await node.enter()
    welcome, told = node.take()
    assert isinstance(welcome, Welcome)
    assert isinstance(told, IceServers)
    assert [server.url for server in told.ice_servers] == [TURN]


async def test_they_are_replaced_at_half_their_life_and_not_before(tmp_path: Path) -> None:
    world = World(with_turn(tmp_path, turn_lifetime=60.0, ping_after=1000.0, idle_timeout=1000.0))
    node = await world.node("node")
    world.pass_time(29)
    assert node.take() == []
    for _ in range(3):
        world.pass_time(30)
        (told,) = node.take()
        assert isinstance(told, IceServers)
        until = int(told.ice_servers[0].username.partition(":")[0])
        assert until - world.clock.wall() == pytest.approx(60, abs=1)
    node.socket.close(1000)
    world.pass_time(60)
    assert node.take() == []


# --- settings -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"turn_servers": (TURN,)}, "TURN needs both"),
        ({"turn_secret_file": Path("x")}, "TURN needs both"),
        ({"turn_servers": ("stun:x",), "turn_secret_file": Path("x")}, "no TURN server"),
        ({"turn_servers": ("turn:x y",), "turn_secret_file": Path("x")}, "no TURN server"),
        ({"ice_servers": ("turn:x",)}, "no STUN server"),
        ({"ice_servers": ("stun:x",) * 9}, "at most 8 STUN servers"),
        ({"turn_lifetime": 1.0}, "turn_lifetime must be"),
    ],
)
def test_settings_that_would_not_work_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RelaySettings(**wrong)  # type: ignore[arg-type]


def test_a_secret_that_is_none_is_refused_without_being_shown(tmp_path: Path) -> None:
    settings = with_turn(tmp_path)
    assert settings.turn_secret_file is not None
    settings.turn_secret_file.write_text("short")
    with pytest.raises(ConfigError, match="shorter than 16") as refused:
        turn_access(settings)
    assert "short\n" not in str(refused.value)
    settings.turn_secret_file.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        turn_access(settings)


# --- the real coturn ----------------------------------------------------------------------

FAMILY = 0x0017
"""REQUESTED-ADDRESS-FAMILY (RFC 8656, 14.1), which aioice does not know."""

DENIED = {
    socket.AF_INET: (
        *("0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.31.0.1"),
        *("192.168.1.1", "198.18.0.1", "224.0.0.1", "255.255.255.255"),
    ),
    socket.AF_INET6: (
        *("::", "::1", "::10.0.0.1", "::ffff:10.0.0.1", "::ffff:127.0.0.1"),
        *("::ffff:169.254.169.254", "::ffff:8.8.8.8", "64:ff9b::a00:1", "2002:a00:1::1"),
        *("2001::1", "fd00::1", "fe80::1", "ff02::1"),
    ),
}
ALLOWED = {socket.AF_INET: "8.8.8.8", socket.AF_INET6: "2600::1"}


@asynccontextmanager
async def coturn(folder: Path) -> AsyncIterator[int]:
    """On both loopbacks; its port."""
    tool = shutil.which("turnserver")
    if tool is None:
        pytest.skip("coturn is not on this machine (build/setup.sh nat installs it)")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    config = folder / "turnserver.conf"
    text = coturn_config(SECRET, "127.0.0.1", port, (49152, 65535))
    config.write_text(text + "listening-ip=::1\nrelay-ip=::1\n")
    quiet = asyncio.subprocess.DEVNULL
    command = (tool, "-c", config, "--pidfile", folder / "pid", "-b", folder / "db")
    running = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet)
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.05)  # until it listens; it does not say so
                else:
                    writer.close()
                    await writer.wait_closed()
                    break
        yield port
    finally:
        running.terminate()
        await running.wait()


@asynccontextmanager
async def allocation(
    server: IceServer, family: socket.AddressFamily, port: int
) -> AsyncIterator[TurnClientUdpProtocol]:
    """A relayed address of that family. Raises TransactionFailed."""
    address = ("127.0.0.1" if family == socket.AF_INET else "::1", port)
    transport, client = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: TurnClientUdpProtocol(address, server.username, server.credential, 600, 500),
        remote_addr=address,
    )
    try:
        request = stun.Message(stun.Method.ALLOCATE, stun.Class.REQUEST)
        request.attributes["LIFETIME"] = 600
        request.attributes["REQUESTED-TRANSPORT"] = UDP_TRANSPORT
        if family == socket.AF_INET6:
            request.attributes["REQUESTED-ADDRESS-FAMILY"] = 2 << 24
        await client.request_with_retry(request)
        yield client
    finally:
        transport.close()


async def refused(client: TurnClientUdpProtocol, peer: str) -> bool:
    """Whether coturn refuses to send to this address (403)."""
    request = stun.Message(stun.Method.CREATE_PERMISSION, stun.Class.REQUEST)
    request.attributes["XOR-PEER-ADDRESS"] = (peer, 9)
    try:
        await client.request_with_retry(request)
    except stun.TransactionFailed as error:
        return error.response.error_code == 403
    return False


async def test_coturn_takes_what_the_relay_gives_and_nothing_else(tmp_path: Path) -> None:
    async with coturn(tmp_path) as port:
        (good,) = access().for_node(KEY, time.time())
        for transport in ("udp", "tcp"):
            endpoint, _ = await create_turn_endpoint(
                asyncio.DatagramProtocol,
                ("127.0.0.1", port),
                good.username,
                good.credential,
                transport=transport,
            )
            assert endpoint.get_extra_info("sockname")[0] == "127.0.0.1"
            endpoint.close()
        (late,) = access().for_node(KEY, time.time() - 700)
        later = IceServer(TURN, f"{int(time.time()) + 6000}:me", good.credential)
        for bad in (late, later, IceServer(TURN, good.username, "guessed")):
            with pytest.raises(stun.TransactionFailed):
                async with allocation(bad, socket.AF_INET, port):
                    pass


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
async def test_coturn_reaches_nothing_but_the_internet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: socket.AddressFamily
) -> None:
    entry = (FAMILY, "REQUESTED-ADDRESS-FAMILY", stun.pack_unsigned, stun.unpack_unsigned)
    monkeypatch.setitem(stun.ATTRIBUTES_BY_TYPE, FAMILY, entry)
    monkeypatch.setitem(stun.ATTRIBUTES_BY_NAME, entry[1], entry)
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with coturn(tmp_path) as port:
        (server,) = access().for_node(KEY, time.time())
        async with allocation(server, family, port) as client:
            assert not await refused(client, ALLOWED[family])
            assert [peer for peer in DENIED[family] if not await refused(client, peer)] == []
