"""The node as a service of the machine: a systemd unit on Linux, a launchd agent on macOS.

As root it is a service of the system, else of the user.
"""

from __future__ import annotations

import os
import plistlib
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pyodide_node.errors import LocalError
from relay_server.lifecycle.running import DRAIN

__all__ = [
    "NAME",
    "Service",
    "ServiceState",
    "check_readable",
    "launchd_plist",
    "systemd_unit",
]

NAME: Final = "kwaainet-node"
_LABEL: Final = "ai.kwaai.kwaainet-node"

ServiceState = Literal["running", "stopped", "absent"]


def systemd_unit(command: Sequence[str], environment: dict[str, str], *, user: bool) -> str:
    """See systemd.service(5) and systemd.exec(5). A user's own manager cannot set up most of the
    confinement, so a unit of the system has more of it."""
    lines = [
        "[Unit]",
        "Description=KwaaiNet node",
        "Documentation=https://github.com/kwaai-ai-lab/KwaaiNet",
        *(() if user else ("Wants=network-online.target", "After=network-online.target")),
        "",
        "[Service]",
        f"ExecStart={' '.join(map(_quoted, command))}",
        *(f"Environment={_quoted(f'{key}={value}')}" for key, value in environment.items()),
        "Restart=on-failure",
        "RestartSec=10",
        f"TimeoutStopSec={DRAIN + 5:.0f}",
        "Nice=10",
        "NoNewPrivileges=yes",
        *(() if user else _CONFINED),
        "",
        "[Install]",
        f"WantedBy={'default' if user else 'multi-user'}.target",
    ]
    return "\n".join(lines) + "\n"


_CONFINED: Final = (
    "DynamicUser=yes",
    f"StateDirectory={NAME}",
    "ProtectSystem=strict",
    "ProtectHome=read-only",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectControlGroups=yes",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "LockPersonality=yes",
    "SystemCallArchitectures=native",
    "CapabilityBoundingSet=",
    "UMask=0077",
)


def launchd_plist(command: Sequence[str], environment: dict[str, str], log: Path) -> bytes:
    """See launchd.plist(5)."""
    return plistlib.dumps(
        {
            "Label": _LABEL,
            "ProgramArguments": list(command),
            "EnvironmentVariables": environment,
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ThrottleInterval": 10,
            "ExitTimeOut": int(DRAIN + 5),
            "ProcessType": "Background",
            "StandardOutPath": str(log),
            "StandardErrorPath": str(log),
        }
    )


@dataclass(frozen=True, slots=True)
class Service:
    """The service of whoever runs this. Everything raises LocalError when the tool fails."""

    platform: str = sys.platform
    root: bool = os.geteuid() == 0

    @property
    def path(self) -> Path:
        if self.platform == "darwin":
            base = Path("/Library/LaunchDaemons") if self.root else Path("~/Library/LaunchAgents")
            return base.expanduser() / f"{_LABEL}.plist"
        if self.root:
            return Path("/etc/systemd/system") / f"{NAME}.service"
        base = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config")
        return base.expanduser() / "systemd" / "user" / f"{NAME}.service"

    @property
    def confined(self) -> bool:
        """Whether it runs as a user that systemd makes for it."""
        return self.root and self.platform != "darwin"

    def install(self, command: Sequence[str], environment: dict[str, str], log: Path) -> None:
        """Write the file, and start the service now and with the machine."""
        if self.platform == "darwin":
            self._write(launchd_plist(command, environment, log))
            self._run("launchctl", "bootstrap", self._domain, str(self.path))
            return
        user = not self.root
        self._write(systemd_unit(command, environment, user=user).encode())
        self._systemctl("daemon-reload")
        self._systemctl("enable", "--now", NAME)

    def uninstall(self) -> None:
        """Stop the service and remove its file."""
        if not self.path.exists():
            raise LocalError(f"no service is installed: there is no {self.path}")
        if self.platform == "darwin":
            self._run("launchctl", "bootout", f"{self._domain}/{_LABEL}")
            self.path.unlink()
        else:
            self._systemctl("disable", "--now", NAME)
            self.path.unlink()
            self._systemctl("daemon-reload")

    def state(self) -> ServiceState:
        if not self.path.exists():
            return "absent"
        if self.platform == "darwin":
            code = self._code("launchctl", "print", f"{self._domain}/{_LABEL}")
        else:
            code = self._code(*self._manager, "is-active", "--quiet", NAME)
        return "stopped" if code else "running"

    @property
    def _domain(self) -> str:
        return "system" if self.root else f"gui/{os.getuid()}"

    @property
    def _manager(self) -> tuple[str, ...]:
        return ("systemctl",) if self.root else ("systemctl", "--user")

    def _systemctl(self, *arguments: str) -> None:
        self._run(*self._manager, *arguments)

    def _write(self, content: bytes) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(content)
        except OSError as error:
            raise LocalError(f"{self.path} cannot be written: {error.strerror}") from error

    def _run(self, *command: str) -> None:
        done = _call(command)
        if done.returncode:
            said = done.stderr.strip() or f"it ended with {done.returncode}"
            raise LocalError(f"`{' '.join(command)}` failed: {said}")

    def _code(self, *command: str) -> int:
        return _call(command).returncode


def check_readable(path: Path, otherwise: str) -> None:
    """Raises LocalError, saying what to do, unless every user can read `path`."""
    for one in (path.absolute(), *path.resolve().parents, *path.absolute().parents):
        if not one.stat().st_mode & (stat.S_IXOTH if one.is_dir() else stat.S_IROTH):
            raise LocalError(
                f"the service runs as a user of its own, which cannot read {path} (for {one}):"
                f" {otherwise}"
            )


def _call(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    if shutil.which(command[0]) is None:
        raise LocalError(f"{command[0]} is not on this machine; start the node with --daemon")
    return subprocess.run(  # noqa: S603 - words of our own
        command, capture_output=True, text=True, check=False
    )


def _quoted(word: str) -> str:
    """For a line of a unit: quotes, specifiers and variables are taken literally."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if escaped != word or " " in word else word
