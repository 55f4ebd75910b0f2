"""The wheel, in an empty environment, on a machine without Node and without a compiler."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from tests.relay_server.http import get

ROOT = Path(__file__).parent.parent
READY_SECONDS = 5.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(580)]


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
    """The `bin` of an environment with the wheel and what it depends on, no package compiled."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--prefer-binary"]
    subprocess.run([*pip, "--only-binary", ":all:", str(wheel)], check=True)
    return folder / "bin"


def test_it_has_the_licences_of_all_that_is_in_it(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    licences = {Path(name).name for name in names if ".dist-info/licenses/" in name}
    assert {"LICENSE", "THIRD_PARTY.md", "MODEL_CARD.md"} <= licences
    for part in ("Pyodide", "CPython", "ONNX-Runtime", "msgspec", "base58", "Jinja2"):
        assert f"{part}.txt" in licences
    assert any(name.endswith("ThirdPartyNotices.txt") for name in names)


def test_it_owns_no_name_of_another_package(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    packages = {top for top in tops if not top.endswith(".dist-info")}
    assert packages == {"pyodide_node", "relay_server", "kwaainet_shards"}


async def test_its_relay_serves_a_tab_within_seconds(environment: Path, tmp_path: Path) -> None:
    begun = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        environment / "kwaainet",
        *("relay", "--port", "0"),
        cwd=tmp_path,
        env={"PATH": str(environment), "HOME": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
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
        for path in ("/frame.html", "/worker.js"):
            assert (await get(found[1], path)).status == 200
        index = await get(found[1], "/models/index.json")
        assert b'"name":"kwaai-docs"' in index.body
    finally:
        process.terminate()
        await process.communicate()
    assert process.returncode == 0
    assert seconds < READY_SECONDS


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
