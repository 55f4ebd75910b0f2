"""The wheel, in an empty environment, on a machine without Node and without a compiler."""

from __future__ import annotations

import asyncio
import io
import os
import re
import shlex
import subprocess
import sys
import time
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser
from playwright.async_api import async_playwright

from relay_server.demo.browsers import profile
from relay_server.demo.site import ExampleSite, default_examples
from relay_server.demo.visitor import Visitor
from tests.relay_server.http import get

ROOT = Path(__file__).parent.parent
DOCKERFILE = ROOT / "relay_server" / "deploy" / "Dockerfile"
READY_SECONDS = 5.0

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(580)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=ROOT,
        # Compression as the other tests have built it: a release takes minutes.
        env=os.environ | {"KWAAINET_WHEEL_QUALITY": "development"},
        check=True,
    )
    return next(out.glob("kwaainet-*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with the wheel and what it depends on, no package compiled: made
    by the commands of the Dockerfile's first stage."""
    folder = tmp_path_factory.mktemp("venv")
    parser = DockerfileParser(fileobj=io.BytesIO(DOCKERFILE.read_bytes()))
    installs = [one["value"] for one in parser.structure if one["instruction"] == "RUN"]
    for command in installs[:2]:
        command = command.replace("/opt/kwaainet", str(folder))
        command = command.replace("/tmp/wheel", str(wheel.parent))
        command = re.sub(r"^python ", f"{shlex.quote(sys.executable)} ", command)
        subprocess.run(["/bin/sh", "-euc", command], check=True)
    return folder / "bin"


def test_it_has_the_licences_of_all_that_is_in_it(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    licences = {Path(name).name for name in names if ".dist-info/licenses/" in name}
    assert {"LICENSE", "THIRD_PARTY.md", "MODEL_CARD.md"} <= licences
    for part in ("Pyodide", "CPython", "ONNX-Runtime", "msgspec", "base58", "Jinja2", "uPlot"):
        assert f"{part}.txt" in licences
    assert any(name.endswith("ThirdPartyNotices.txt") for name in names)


def test_it_brings_what_operators_need(wheel: Path, environment: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for file in ("kwaainet-relay.service", "grafana.json", "alerts.yml", "Caddyfile"):
        assert f"relay_server/deploy/{file}" in names
    driver = [environment / "python", "-c", "import pg8000, relay_server.database"]
    subprocess.run(driver, check=True, cwd="/")


def test_it_owns_no_name_of_another_package(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    packages = {top for top in tops if not top.endswith(".dist-info")}
    assert packages == {"pyodide_node", "relay_server", "kwaainet_shards"}


@asynccontextmanager
async def relay(environment: Path, home: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Nothing but the environment is on its PATH: no Node, no compiler."""
    process = await asyncio.create_subprocess_exec(
        environment / "kwaainet",
        *("relay", "--port", "0"),
        cwd=home,
        env={"PATH": str(environment), "HOME": str(home)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.terminate()
        await process.communicate()
    assert process.returncode == 0


async def test_its_relay_serves_a_tab_within_seconds(environment: Path, tmp_path: Path) -> None:
    begun = time.monotonic()
    async with relay(environment, tmp_path) as process:
        assert process.stdout is not None
        found = None
        while found is None:
            line = (await process.stdout.readline()).decode()
            assert line, "the relay ended"
            found = re.search(r"KwaaiNet relay on (http://\S+)", line)
        tag = await get(found[1], "/sovereign-ai.js")
        seconds = time.monotonic() - begun
        assert tag.status == 200
        assert b"KwaaiNet" in tag.body
        for path in ("/frame.html", "/worker.js", "/map", "/map.js", "/map.css"):
            assert (await get(found[1], path)).status == 200
        index = await get(found[1], "/models/index.json")
        assert b'"name":"kwaai-docs"' in index.body
        assert seconds < READY_SECONDS
        await becomes_a_node(found[1].replace("127.0.0.1", "localhost"))


async def becomes_a_node(cdn: str) -> None:
    """A visitor of a site with the tag says yes: their Chromium serves the model, and answers."""
    share = {"max-resources": "cpu:100,memory:1024,storage:500", "model": "kwaai-docs"}
    async with (
        ExampleSite(default_examples(), cdn) as site,
        async_playwright() as playwright,
        profile(playwright) as context,
    ):
        visitor = await Visitor.open(context, site.page("chat", share))
        status = await visitor.agree()
        assert (status["state"], status["relay"]["connected"]) == ("ready", True)
        first, last = status["span"]
        assert last > first
        request = {"prompt": "To open a file", "max_tokens": 4, "temperature": 0}
        answer = await visitor.ask(lambda text: None, **request)
        assert answer["text"]


async def test_all_of_its_commands_are_there(environment: Path, tmp_path: Path) -> None:
    async def said(*arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            environment / "kwaainet",
            *arguments,
            cwd=tmp_path,
            env={"PATH": str(environment), "HOME": str(tmp_path)},
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
        assert process.returncode == 0
        return out.decode()

    commands = await said("--help")
    for name in ("relay", "start", "generate", "model", "service", "api-key"):
        assert f"│ {name} " in commands
    assert "kwaai-docs" in await said("model", "list")


def test_its_builder_can_be_imported_beside_another_build(environment: Path) -> None:
    words = "import kwaainet_shards.builder, relay_server.commands.private as p; print(p.__file__)"
    said = subprocess.run(
        [environment / "python", "-c", words],
        cwd="/",
        env={"PATH": str(environment)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert str(environment.parent) in said.stdout
