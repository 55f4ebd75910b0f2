"""Files that systemd and launchd take, and what their tools are told."""

from __future__ import annotations

import plistlib
import shutil
import subprocess
from pathlib import Path

import pytest

from pyodide_node.errors import LocalError
from relay_server.lifecycle.service import (
    NAME,
    Service,
    check_readable,
    launchd_plist,
    systemd_unit,
)

COMMAND = ["/usr/bin/python3", "-m", "relay_server", "start", "--state", '/srv/a "b" 100%/$x']
ENVIRONMENT = {"KWAAINET_CONFIG": "/etc/kwaainet/config.toml"}


@pytest.mark.parametrize("user", [True, False])
def test_systemd_takes_the_unit(tmp_path: Path, user: bool) -> None:
    unit = tmp_path / f"{NAME}.service"
    unit.write_text(systemd_unit(COMMAND, ENVIRONMENT, user=user))
    text = unit.read_text()
    assert '"/srv/a \\"b\\" 100%%/$$x"' in text
    assert "Environment=KWAAINET_CONFIG=/etc/kwaainet/config.toml" in text
    assert ("DynamicUser=yes" in text) is not user
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not on this machine")
    done = subprocess.run([tool, "verify", "--man=no", str(unit)], capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if NAME in line]
    assert (done.returncode, said) == (0, [])


def test_launchd_takes_the_agent() -> None:
    told = plistlib.loads(launchd_plist(COMMAND, ENVIRONMENT, Path("/tmp/node.log")))
    assert told["ProgramArguments"] == COMMAND
    assert told["EnvironmentVariables"] == ENVIRONMENT
    assert told["KeepAlive"] == {"SuccessfulExit": False}
    assert told["StandardErrorPath"] == "/tmp/node.log"


def test_a_confined_service_must_be_able_to_read_what_it_runs(tmp_path: Path) -> None:
    check_readable(Path("/bin/sh"), "do this")
    tmp_path.chmod(0o755)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "python").touch()
    with pytest.raises(LocalError, match=r"cannot read .*/closed/python .*do this"):
        check_readable(closed / "python", "do this")


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where tools, that only write down what they are told, do so."""
    words = tmp_path / "told"
    words.touch()
    for name in ("systemctl", "launchctl"):
        tool = tmp_path / "bin" / name
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(f'#!/bin/sh\necho {name} "$@" >>{words}\ntest ! -e {tmp_path}/broken\n')
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/bin:/usr/bin")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return words


def test_a_users_service_comes_and_goes(told: Path) -> None:
    service = Service(platform="linux", root=False)
    assert service.state() == "absent"
    service.install(COMMAND, ENVIRONMENT, Path("/tmp/node.log"))
    assert service.path == told.parent / f"config/systemd/user/{NAME}.service"
    assert "WantedBy=default.target" in service.path.read_text()
    assert service.state() == "running"
    service.uninstall()
    assert not service.path.exists()
    assert told.read_text().splitlines() == [
        "systemctl --user daemon-reload",
        f"systemctl --user enable --now {NAME}",
        f"systemctl --user is-active --quiet {NAME}",
        f"systemctl --user disable --now {NAME}",
        "systemctl --user daemon-reload",
    ]
    with pytest.raises(LocalError, match="no service is installed"):
        service.uninstall()


def test_a_mac_has_an_agent(told: Path) -> None:
    service = Service(platform="darwin", root=False)
    service.install(COMMAND, {}, Path("/tmp/node.log"))
    assert service.path.parent == told.parent / "Library/LaunchAgents"
    assert service.state() == "running"
    service.uninstall()
    words = [line.split()[1] for line in told.read_text().splitlines()]
    assert words == ["bootstrap", "print", "bootout"]


def test_what_the_tool_refuses_is_told(told: Path) -> None:
    service = Service(platform="linux", root=False)
    service.install(COMMAND, {}, Path("/tmp/node.log"))
    (told.parent / "broken").touch()
    assert service.state() == "stopped"
    with pytest.raises(LocalError, match=r"systemctl --user disable --now .* failed"):
        service.uninstall()


def test_a_machine_without_the_tool_is_told(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(told.parent / "nothing"))
    with pytest.raises(LocalError, match="systemctl is not on this machine"):
        Service(platform="linux", root=False).install(COMMAND, {}, Path("/tmp/node.log"))
