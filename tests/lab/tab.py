"""Commands of the member in a tab; runs in its worker, after member.py."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from pyodide_node.config import NodeConfig
from pyodide_node.hosts.browser.loop import quicken
from pyodide_node.hosts.browser.start import browser_host

if TYPE_CHECKING:
    from tests.lab.member import Member

_member: Member | None = None


async def run(bridge: Any, name: str, argument: str) -> str:
    global _member
    quicken(asyncio.get_running_loop())
    given = json.loads(argument)
    if name == "ask":
        assert _member is not None
        return json.dumps(await _member.ask(*given))
    if name == "route":
        assert _member is not None
        return json.dumps(_member.route(*given))
    if _member is not None:
        await _member.close()
        _member = None
    if name == "join":
        _member = Member(browser_host(bridge, NodeConfig(engine="wasm")), *given)
        return json.dumps(await _member.joined())
    return "null"
