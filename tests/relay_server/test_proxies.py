"""The relay behind the proxies of docs/RELAY.md, configured as is printed there."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay_server import Relay, RelaySettings
from tests.relay_server.client import PATIENCE, Client
from tests.relay_server.http import get
from tests.relay_server.map.viewer import Follower
from tests.relay_server.test_relay import self_signed

PAGE = Path(__file__).resolve().parents[2] / "docs" / "RELAY.md"


def printed(kind: str) -> str:
    """The page's configuration of that kind."""
    found = re.search(rf"<!-- {kind} -->\n```\w+\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


@asynccontextmanager
async def nginx(folder: Path, relay_port: int, port: int) -> AsyncIterator[Path]:
    """nginx with TLS on `port` before the relay; its certificate."""
    tool = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if tool is None:
        pytest.skip("nginx is not on this machine")
    cert, key = self_signed(folder)
    site = (
        printed("nginx")
        .replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
        .replace("127.0.0.1:8080", f"127.0.0.1:{relay_port}")
        .replace("/etc/letsencrypt/live/relay.example.org/fullchain.pem", str(cert))
        .replace("/etc/letsencrypt/live/relay.example.org/privkey.pem", str(key))
    )
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    conf = folder / "nginx.conf"
    conf.write_text(
        f"daemon off; pid {folder}/nginx.pid; error_log stderr;\n"
        f"events {{}}\nhttp {{\n{temporary}{site}}}\n"
    )
    command = [tool, "-e", "stderr", "-p", str(folder), "-c", str(conf)]
    checking = await asyncio.create_subprocess_exec(*command, "-t", stderr=asyncio.subprocess.PIPE)
    _, said = await checking.communicate()
    assert checking.returncode == 0, said.decode()
    process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL)
    try:
        async with asyncio.timeout(PATIENCE):
            while process.returncode is None:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except ConnectionRefusedError:
                    await asyncio.sleep(0.01)  # until it listens
                else:
                    writer.close()
                    break
        yield cert
    finally:
        process.terminate()
        await process.wait()


async def test_nginx_passes_pages_and_mesh_on(tmp_path: Path) -> None:
    port = free_port()
    settings = RelaySettings(
        port=0,
        stun=False,
        audiences=frozenset({"localhost"}),
        trusted_proxies=frozenset({"127.0.0.1"}),
    )
    async with Relay(settings) as relay, nginx(tmp_path, relay.port, port) as cert:
        context = ssl.create_default_context(cafile=str(cert))
        answer = await get(f"https://localhost:{port}", "/healthz", context=context)
        assert (answer.status, answer.body) == (200, b"ok\n")
        mesh = f"wss://localhost:{port}/mesh"
        async with Client(mesh, ssl=context) as a, Client(mesh, ssl=context) as b:
            await b.hears(a)
            await a.forward(b.key, bytes(100_000))
            assert await b.forwarded() == (a.key, bytes(100_000))
            assert len(relay.hub) == 2
            async with Follower(f"https://localhost:{port}", ssl=context) as follower:
                assert follower.shown["type"] == "map"


def test_caddy_takes_what_is_printed(tmp_path: Path) -> None:
    text = printed("caddy")
    assert text.count("{") == text.count("}")
    tool = shutil.which("caddy")
    if tool is None:
        pytest.skip("caddy is not on this machine")
    file = tmp_path / "Caddyfile"
    file.write_text(text)
    done = subprocess.run(
        [tool, "adapt", "--config", str(file), "--validate"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
