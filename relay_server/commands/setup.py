"""`kwaainet setup`: directories, an identity and a settings file to begin with."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter
from rich.console import Console

from pyodide_node.hosts.native import native_host
from pyodide_node.mesh.peer import did_key
from relay_server.commands.node_options import DEFAULT_RELAY, state_directory
from relay_server.settings_file import SettingsFile
from relay_server.sources import config_file

__all__ = ["setup"]

_FIRST: Final = """\
# Settings of KwaaiNet. `kwaainet config` lists those of the node, docs/RELAY.md those of the relay;
# an option on the command line and a variable like KWAAINET_NODE_RELAY count more.

[node]
relay = "{relay}"

[relay]
# audiences = ["relay.example.org"]
"""


def setup(
    *,
    relay: str = DEFAULT_RELAY,
    state: Annotated[Path | None, Parameter(show_default=False)] = None,
) -> None:
    """Make the directories, the node's identity and a settings file; what is there stays.

    Parameters
    ----------
    relay
        Relay to join, as https://host.
    state
        The node's directory. Default: ~/.local/state/kwaainet.
    """
    console = Console(highlight=False, emoji=False)
    folder = state_directory(state)
    did = asyncio.run(_identity(folder))
    file = SettingsFile(config_file())
    if file.path.exists():
        console.print(f"settings  {file.path}, as it was", soft_wrap=True)
    else:
        file.write(_FIRST.format(relay=relay.replace("\\", "").replace('"', "")))
        console.print(f"settings  {file.path}", soft_wrap=True)
    console.print(f"state     {folder}", soft_wrap=True)
    console.print(f"identity  {did}", soft_wrap=True)
    console.print("Next: `kwaainet calibrate --apply recommended`, `kwaainet start --daemon`.")


async def _identity(folder: Path) -> str:
    host = await native_host(folder)
    try:
        return did_key(host.keys.public_key)
    finally:
        host.close()
