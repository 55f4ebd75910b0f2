"""`kwaainet service`: the node starts with the machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from relay_server.commands.node_options import state_directory
from relay_server.lifecycle.places import Places
from relay_server.lifecycle.service import NAME, Service, check_readable
from relay_server.sources import CONFIG_VARIABLE, config_file

__all__ = ["service"]

service = App(
    name="service", help="Start the node with the machine: systemd on Linux, launchd on macOS."
)


@service.command
def install(*, state: Annotated[Path | None, Parameter(show_default=False)] = None) -> None:
    """Install and start a service: of the system as root, else of the user.

    It runs `kwaainet start` with the settings file, and starts it afresh when it fails.

    Parameters
    ----------
    state
        The node's directory. Default: /var/lib/kwaainet-node as root on Linux, else
        ~/.local/state/kwaainet.
    """
    made = Service()
    if state is not None:
        home = state.absolute()
    elif made.confined:
        home = Path("/var/lib") / NAME  # systemd makes it, for the user that it makes
    else:
        home = state_directory(None).expanduser().absolute()
    command = [sys.executable, "-m", "relay_server", "start", "--health", "--state", str(home)]
    environment = {}
    if made.confined:
        check_readable(Path(sys.executable), "install kwaainet into an environment in /opt")
    if config_file().exists():
        settings = config_file().absolute()
        if made.confined:
            check_readable(settings, "keep it as /etc/kwaainet/config.toml and name it: --config")
        environment[CONFIG_VARIABLE] = str(settings)
    made.install(command, environment, Places(home).log)
    console = Console(highlight=False, emoji=False)
    console.print(f"The node runs as a service, and starts with the machine: {made.path}")
    if made.platform != "darwin" and not made.root:
        console.print("Without anybody logged in it runs only after `loginctl enable-linger`.")


@service.command
def uninstall() -> None:
    """Stop the service and remove it; the node's identity and settings stay."""
    made = Service()
    made.uninstall()
    Console(highlight=False, emoji=False).print(f"The service is gone: {made.path}")


@service.command(name="status")
def service_status(
    *, json_form: Annotated[bool, Parameter(name="--json", negative=())] = False
) -> None:
    """Tell whether the service is installed and runs; exits with 1 when it does not run.

    Parameters
    ----------
    json_form
        As JSON, for scripts.
    """
    made = Service()
    state = made.state()
    if json_form:
        print(json.dumps({"state": state, "file": str(made.path)}))
    else:
        Console(highlight=False, emoji=False).print(f"{state}: {made.path}", soft_wrap=True)
    if state != "running":
        sys.exit(1)
