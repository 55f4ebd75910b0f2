"""`kwaainet relay` as people run it: a process of its own."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay_server.commands.relay import serve
from relay_server.settings import RelaySettings
from tests.relay_server.client import PATIENCE, Client
from tests.relay_server.http import get

START = "import sys; from relay_server.cli import main; main()"


@asynccontextmanager
async def kwaainet(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        START,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"COLUMNS": "100", "NO_COLOR": "1"},
    )
    try:
        async with asyncio.timeout(3 * PATIENCE):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def said(*arguments: str) -> tuple[int | None, str, str]:
    async with kwaainet(*arguments) as process:
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()


async def greeting(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readuntil(b"/metrics\n")).decode()


async def test_help_names_every_command() -> None:
    code, out, _ = await said("--help")
    assert code == 0
    assert "relay" in out


async def test_help_explains_every_option() -> None:
    code, out, _ = await said("relay", "--help")
    assert code == 0
    assert "sees neither prompts nor activations" in out
    options = re.findall(r"--([a-z-]+)", out)
    for setting in ("host", "port", "cdn", "models", "stun", "no-stun", "audience"):
        assert setting in options
    fields = {field.name.replace("_", "-") for field in dataclasses.fields(RelaySettings)}
    assert {"max-connections", "queue-bytes"} <= fields & set(options)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_starts_serves_and_stops(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "worker.js").write_text("// worker")
    async with kwaainet("relay", "--port", "0", "--cdn", str(tmp_path)) as process:
        text = await greeting(process)
        found = re.search(r"http://127\.0\.0\.1:(\d+)", text)
        assert found is not None
        url, port = found[0], found[1]
        assert f'<script async src="{url}/sovereign-ai.js"></script>' in text
        assert f"ws://127.0.0.1:{port}/mesh" in text
        assert f"UDP port {port}" in text
        assert (await get(url, "/worker.js")).body == b"// worker"
        node = Client(f"ws://127.0.0.1:{port}/mesh")
        await node.dial()
        await node.enter()
        process.send_signal(number)
        await node.socket.wait_closed()
        assert node.socket.close_code == 1012
        out, err = await process.communicate()
        assert process.returncode == 0
        assert b"Stopping" in out
        assert err == b""


async def serve_and_stop(settings: RelaySettings) -> str:
    """All that is said by a relay that is stopped as soon as it has started."""
    lines: list[str] = []

    def say(text: str) -> None:
        if not lines:
            os.kill(os.getpid(), signal.SIGTERM)
        lines.append(text)

    await serve(settings, say)
    return "\n".join(lines)


async def test_a_relay_says_what_it_lacks() -> None:
    text = await serve_and_stop(RelaySettings(port=0, stun=False))
    for hint in ("--cdn", "--models", "STUN: off", "Stopping"):
        assert hint in text
    assert "--audience" not in text


async def test_a_relay_says_what_it_has(tmp_path: Path) -> None:
    text = await serve_and_stop(
        RelaySettings(host="0.0.0.0", port=0, cdn=tmp_path, models=tmp_path)
    )
    for hint in ("sovereign-ai.js", str(tmp_path), "UDP port", "--audience"):
        assert hint in text


async def test_a_relay_waits_for_no_engine_and_no_webrtc() -> None:
    heavy = "{'onnxruntime', 'aiortc', 'numpy', 'playwright'}"
    look = f"import sys, relay_server.commands.relay; print({heavy} & set(sys.modules))"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", look, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert out == b"set()\n"


async def test_a_taken_port_is_one_line_not_a_traceback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, out, err = await said("relay", "--port", port)
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert "choose another --port" in err


async def test_a_directory_that_is_none_is_said_so(tmp_path: Path) -> None:
    code, _, err = await said("relay", "--cdn", str(tmp_path / "absent"))
    assert code != 0
    assert "absent" in err


async def test_half_of_tls_is_said_so(tmp_path: Path) -> None:
    cert = tmp_path / "cert.pem"
    cert.write_text("")
    code, _, err = await said("relay", "--tls-cert", str(cert))
    assert code == 1
    assert "certificate and its key" in err
