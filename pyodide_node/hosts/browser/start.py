"""One node's life in a worker."""

from __future__ import annotations

import asyncio
from typing import Any

from pyodide.ffi import create_proxy

from pyodide_node.config import NodeConfig
from pyodide_node.control import Control, config_of
from pyodide_node.errors import KwaaiNetError
from pyodide_node.hosts.base import Host

from .clock import BrowserClock
from .engine import BrowserEngine, choose_engine
from .keys import BrowserKeys
from .loop import quicken
from .store import BrowserStore
from .transport import BrowserTransport

__all__ = ["browser_host", "start"]


def browser_host(bridge: Any, config: NodeConfig) -> Host:
    """Raises ConfigError for an engine that this browser does not have."""
    name = choose_engine(config.engine, bridge.gpu)
    return Host(
        kind="tab",
        clock=BrowserClock(),
        keys=BrowserKeys(bridge.keys),
        transport=BrowserTransport(bridge),
        engine=BrowserEngine(bridge, name),
        store=BrowserStore(bridge.store),
    )


async def start(bridge: Any, config_json: str) -> None:
    """Run a node until it is stopped; calls are delivered as soon as there is somebody to take
    them. `bridge` is a Bridge of loader/worker/bridge.ts."""
    quicken(asyncio.get_running_loop())
    try:
        config = config_of(config_json)
        control = Control(browser_host(bridge, config), config, bridge.post)
    except KwaaiNetError as error:
        bridge.refuse(error.code, str(error))
        return
    deliver = create_proxy(control.deliver)
    try:
        bridge.serve(deliver)
        await control.run()
    finally:
        deliver.destroy()
