"""What the relay's log says, in both forms; and what it never says."""

from __future__ import annotations

import ast
import asyncio
import io
import json
import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from relay_server.api.keys import ApiKeys
from relay_server.logs import LOG, scrubbed, write_logs
from relay_server.settings import default_models
from relay_server.state import State
from relay_server.traffic import EVERY, Traffic
from tests.relay_server.client import PATIENCE, Client
from tests.relay_server.fakes import World
from tests.relay_server.http import get
from tests.relay_server.test_cli import kwaainet

ROOT = Path(__file__).resolve().parents[2]
KEY = f"kwaai-{'0' * 12}-{'A_-' * 14}A"


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """The process's loggers, as they were."""
    root = logging.getLogger()
    names = ("kwaainet.relay", "relay_server", "uvicorn")
    levels = {name: logging.getLogger(name).level for name in names}
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook
    yield
    logging.captureWarnings(False)
    sys.excepthook, threading.excepthook = hooks
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, former in levels.items():
        logging.getLogger(name).setLevel(former)


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_an_event_is_one_line_of_json() -> None:
    out = io.StringIO()
    write_logs("json", "info", out)
    LOG.debug("unheard")
    LOG.info("traffic", nodes=3, refused={"Full": 2})
    logging.getLogger("uvicorn.error").info("unheard")
    logging.getLogger("uvicorn.error").warning("two\nlines")
    logging.getLogger("aioice.ice").info("a library's whisper")
    logging.getLogger("aioice.ice").warning("a library's %s", "warning")
    first, second, third = events(out.getvalue())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", first.pop("timestamp"))
    assert first == {
        "event": "traffic",
        "level": "info",
        "logger": "kwaainet.relay",
        "nodes": 3,
        "refused": {"Full": 2},
    }
    assert (second["event"], second["logger"]) == ("two\nlines", "uvicorn.error")
    assert (third["event"], third["level"]) == ("a library's warning", "warning")


def test_text_is_a_line_for_people() -> None:
    out = io.StringIO()
    write_logs("text", "warning", out)
    LOG.info("traffic", nodes=3)
    LOG.warning("slow", seconds=2)
    (line,) = out.getvalue().splitlines()
    assert re.search(r"Z \[warning\s*\] slow .*seconds=2", line)
    assert "\x1b" not in line


@pytest.mark.parametrize("form", ["json", "text"])
def test_mistakes_bring_their_traceback(form: Any) -> None:
    out = io.StringIO()
    write_logs(form, "info", out)
    try:
        raise ZeroDivisionError(f"of 192.0.2.7 with {KEY}")
    except ZeroDivisionError as error:
        logging.getLogger("uvicorn.error").error("mistake", exc_info=error)
        sys.excepthook(type(error), error, error.__traceback__)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    text = out.getvalue()
    assert text.count("Traceback") == 2
    assert text.count("ZeroDivisionError: of [address] with [key]") == 2
    assert "crashed" in text
    assert "DeprecationWarning: old" in text
    assert (len(text.splitlines()) == 3) is (form == "json")


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("from 192.0.2.7:443", "from [address]:443"),
        ("('::1', 80, 0, 0)", "('[address]', 80, 0, 0)"),
        ("[2001:db8::7]:443", "[[address]]:443"),
        ("fe80::1%eth0 is gone", "[address] is gone"),
        ("::ffff:192.0.2.7", "[address]"),
        ("from 192.0.2.7.", "from [address]."),
        ("postgresql://ada:secret@db/relay", "postgresql://[user]@db/relay"),
        (f"Bearer {KEY}", "Bearer [key]"),
        ("at 15:04:05, version 1.2.3", "at 15:04:05, version 1.2.3"),
        ("File a.py: line 3: x::y", "File a.py: line 3: x::y"),
    ],
)
def test_what_is_private_is_taken_out(said: str, written: str) -> None:
    assert scrubbed(said) == written


@given(st.ip_addresses().map(str), st.sampled_from(["{}", "to {}, port 1", "({}) [{}]", "{}/64"]))
def test_no_address_gets_through(address: str, form: str) -> None:
    assert address not in scrubbed(form.replace("{}", address))


@given(st.text())
def test_any_text_can_be_logged(text: str) -> None:
    out = io.StringIO()
    write_logs("json", "info", out)
    try:
        LOG.info("any", text=text, more={text: [text, 1.5, None]})
    finally:
        logging.getLogger().handlers.clear()
    (event,) = events(out.getvalue().rstrip("\n").replace("\u2028", "?").replace("\x85", "?"))
    assert event["event"] == "any"


# --- the relay's own ------------------------------------------------------------------------


async def test_traffic_is_told_once_a_minute_if_there_was_any() -> None:
    world = World()
    traffic = Traffic(world.hub, now=0.0)
    await world.node("node")
    stranger = await world.node("stranger")
    world.hub.received(stranger.node, b"junk")
    assert traffic.look(EVERY - 1) is None
    assert traffic.look(EVERY + 1) == {
        "seconds": 61,
        "nodes": 1,
        "entered": 2,
        "refused": {"ProtocolError": 1},
    }
    assert traffic.look(3 * EVERY) is None


def test_every_event_is_in_the_guide() -> None:
    page = (ROOT / "docs/OPERATORS.md").read_text()
    found = set()
    for path in (ROOT / "relay_server").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "LOG"
                and ("relay_server.logs import LOG" in path.read_text() or path.stem == "logs")
            ):
                assert isinstance(node.args[0], ast.Constant)
                found.add(node.args[0].value)
    assert {"started", "traffic", "api_answer"} <= found
    rows = re.findall(r"^\| (`.+`) \| (?:info|warning|error|critical) \|", page, re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"\w+", row)}
    assert told == found


PROMPT = "the secret plan of the moles"


async def ask(url: str, key: str) -> int:
    """One completion, by hand; its status."""
    body = json.dumps({"model": "kwaai-docs", "prompt": PROMPT, "max_tokens": 2}).encode()
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /v1/completions HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n"
        + f"Authorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    line = await reader.readline()
    await reader.read()
    writer.close()
    return int(line.split()[1])


@pytest.mark.parametrize("form", ["json", "text"])
async def test_a_busy_run_tells_nothing_of_anybody(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the level that says most: nodes that misbehave, prompts, keys right and wrong."""
    with State(tmp_path) as state:
        key = ApiKeys(state).add("ada")
    models = default_models()
    monkeypatch.setenv("KWAAINET_RELAY_SWEEP_EVERY", "0.05")
    monkeypatch.setenv("KWAAINET_RELAY_API_ANSWERS_PER_KEY", "2")
    options = ("--port", "0", "--models", str(models), "--state", str(tmp_path), "--api")
    logs = ("--log-format", form, "--log-level", "debug")
    async with kwaainet("relay", *options, *logs) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        greeted, told = b"", []
        if form == "json":
            while not told or b'"started"' not in told[-1]:
                told.append(await process.stderr.readline())
            port = json.loads(told[-1])["port"]
        else:
            greeted = await process.stdout.readuntil(b"/metrics\n")
            found = re.search(rb"127\.0\.0\.1:(\d+)/mesh", greeted)
            assert found is not None
            port = int(found[1])
        url = f"http://127.0.0.1:{port}"
        async with asyncio.timeout(2 * PATIENCE):
            async with Client(f"ws://127.0.0.1:{port}/mesh") as node:
                await node.publish()
                await node.socket.send("junk")
                await node.refused()
            assert await ask(url, "wrong") == 401
            assert await ask(url, key[:-1] + ("A" if key[-1] != "A" else "B")) == 401
            async with Client(f"ws://127.0.0.1:{port}/mesh") as node:
                await node.forward(node.key, b"published")
                await node.forwarded()
                # Nobody serves the model: its asker looks for nodes, and gives up or is cut off.
                asking = asyncio.create_task(ask(url, key))
                await get(url, "/absent")
                await get(url, "/metrics")
                process.send_signal(signal.SIGTERM)
                out, err = await process.communicate()
                await asyncio.gather(asking, return_exceptions=True)
    everything = b"".join([*told, out, err]).decode()
    for private in ("127.0.0.1", key, key.split("-", 2)[2][:20], PROMPT, "moles", "wrong"):
        assert private not in everything
    if form == "json":
        assert out == b""
        ours = [each["event"] for each in events(everything) if each["logger"] == "kwaainet.relay"]
        assert (ours[0], ours[-2:]) == ("started", ["stopping", "stopped"])
    else:
        assert b"Stopping" in out


async def test_what_keeps_it_from_starting_is_an_event_too(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    state = str(tmp_path / "file")
    async with kwaainet(
        "relay", "--port", "0", "--api", "--state", state, "--log-format", "json"
    ) as process:
        out, err = await process.communicate()
    (event,) = events(err.decode())
    assert (process.returncode, out, event["event"]) == (1, b"", "failed")
    assert "cannot be opened" in event["reason"]


def test_nothing_of_structlog_is_set_for_others() -> None:
    assert not structlog.is_configured()
    assert os.environ.get("KWAAINET_RELAY_LOG_FORMAT") is None
