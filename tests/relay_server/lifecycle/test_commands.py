"""Commands that need no running node, as processes."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from pyodide_node import __version__
from relay_server.lifecycle.lock import holder
from tests.relay_server.lifecycle.conftest import User

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def release(folder: Path, version: str) -> None:
    """A wheel of that version that has nothing in it."""
    info = f"kwaainet-{version}.dist-info"
    with zipfile.ZipFile(folder / f"kwaainet-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: kwaainet\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


async def test_a_newer_release_is_told(user: User) -> None:
    index = user.home / "index"
    index.mkdir()
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "PIP_CONFIG_FILE": "/dev/null"}
    release(index, "0.0.1")
    code, out, _ = await user.run("update", "--check", **pip)
    assert (code, out) == (0, f"kwaainet {__version__} is the newest release.\n")
    release(index, "99.1")
    code, out, _ = await user.run("update", "--check", "--json", **pip)
    assert (code, json.loads(out)) == (1, {"installed": __version__, "newest": "99.1"})
    code, out, _ = await user.run("update", "--check", **pip)
    assert code == 1
    assert "kwaainet 99.1 is out" in out


async def test_no_release_at_all_is_one_line(user: User) -> None:
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(user.home), "PIP_CONFIG_FILE": "/dev/null"}
    code, _, err = await user.run("update", "--check", PIP_TARGET=str(user.home / "t"), **pip)
    assert code == 1
    assert err.startswith("kwaainet: pip found no release: ")
    assert len(err.splitlines()) == 1


async def test_setup_makes_what_is_not_there_and_keeps_what_is(user: User) -> None:
    code, out, _ = await user.run("setup", "--relay", "https://relay.example.org")
    assert code == 0
    assert "did:key:z6Mk" in out
    assert (user.places.state / "identity.pem").stat().st_mode & 0o777 == 0o600
    text = user.config.read_text()
    assert 'relay = "https://relay.example.org"' in text
    code, again, _ = await user.run("setup")
    assert code == 0
    assert "as it was" in again
    assert user.config.read_text() == text
    assert out.splitlines()[2] == again.splitlines()[2]


async def test_settings_are_checked_before_they_are_written(user: User) -> None:
    code, out, _ = await user.run("config", "--set", "blocks", "6")
    assert (code, out) == (0, f"max_blocks is 6, in {user.config}\n")
    await user.run("config", "--set", "mirrors", "https://a.example/m/ https://b.example/m/")
    assert user.config.read_text() == (
        '[node]\nmax_blocks = 6\nmirrors = ["https://a.example/m/", "https://b.example/m/"]\n'
    )
    for key, value, problem in (
        ("max_blocks", "six", "int"),
        ("nonsense", "1", "'nonsense' is no setting; there are: model,"),
        ("max-resources", "cpu:1000", "from 1 to 100"),
        ("relay", "ftp://x", "relay"),
    ):
        code, _, err = await user.run("config", "--set", key, value)
        assert code == 1
        assert problem in err
    code, out, _ = await user.run("config", "--view", "--json", KWAAINET_NODE_THREADS="3")
    rows = json.loads(out)
    assert rows["max_blocks"] == {"value": 6, "from": str(user.config)}
    assert rows["threads"] == {"value": 3, "from": "$KWAAINET_NODE_THREADS"}
    assert rows["model"]["from"] == "default"
    await user.run("config", "--set", "max-blocks", "")
    assert "max_blocks" not in user.config.read_text()


async def test_a_service_is_installed_by_the_machines_own_tool(user: User) -> None:
    tools = user.home / "bin"
    tools.mkdir()
    (tools / "systemctl").write_text(f'#!/bin/sh\necho "$@" >>{user.home}/told\nexit 1\n')
    (tools / "systemctl").chmod(0o755)
    code, out, _ = await user.run("service", "status", "--json", PATH=f"{tools}:/usr/bin:/bin")
    assert (code, json.loads(out)["state"]) == (1, "absent")
    code, _, err = await user.run("service", "uninstall", PATH=f"{tools}:/usr/bin:/bin")
    assert code == 1
    assert "no service is installed" in err


async def test_without_a_node_every_command_says_how_to_start_one(user: User) -> None:
    for command in (("health-status",), ("monitor", "stats"), ("monitor", "alert")):
        code, _, err = await user.run(*command)
        assert code == 1
        assert "start it with `kwaainet start --daemon`" in err
    code, _, err = await user.run("logs")
    assert code == 1
    assert "there is no log" in err
    assert holder(user.places.lock) is None
