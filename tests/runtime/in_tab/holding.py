"""Loads as many blocks as the caps allow, as a node does, and runs a step through them."""

from __future__ import annotations

import json
from typing import Any

import js  # noqa: TID251

from pyodide_node.budget import Budget
from pyodide_node.config import ResourceLimits
from pyodide_node.delivery.catalog import Model
from pyodide_node.delivery.delivery import Delivery
from pyodide_node.delivery.storage import Storage
from pyodide_node.hosts.base import Host
from pyodide_node.hosts.browser.clock import BrowserClock
from pyodide_node.hosts.browser.engine import BrowserEngine
from pyodide_node.hosts.browser.keys import BrowserKeys
from pyodide_node.hosts.browser.store import BrowserStore
from pyodide_node.hosts.browser.transport import BrowserTransport
from pyodide_node.inference.holding import Holding
from pyodide_node.inference.own_ends import OwnEnds
from pyodide_node.model.manifest import decode_manifest


async def main(bridge: Any, argument: str) -> str:
    given = json.loads(argument)
    host = Host(
        kind="tab",
        clock=BrowserClock(),
        keys=BrowserKeys(bridge.keys),
        transport=BrowserTransport(bridge),
        engine=BrowserEngine(bridge, given["engine"]),
        store=BrowserStore(bridge.store),
    )
    limits = ResourceLimits(cpu=100, memory=given["memory"], storage=20000)
    budget = Budget(host.clock, "tab", limits)
    folder = given["models"].replace("kwaai-docs", "wide")
    manifest = decode_manifest(await host.store.fetch(folder + "manifest.json", 1 << 20))
    model = Model(manifest, manifest.model_id, (folder + "blobs/",))
    storage = Storage(host, budget, lambda: None)
    await storage.open()
    read = Delivery(host, model, storage)
    ends = OwnEnds(host, budget, manifest, read)
    assert ends.reserve()
    holding = Holding(host, budget, model, read, None, prepare=read.bring_span)
    blocks = holding.require_room()
    await holding.load(0, blocks)
    await holding.measure()
    await ends.get()
    assert budget.memory_free >= holding.footprint.session(1, blocks)
    return json.dumps(
        {
            "blocks": blocks,
            "engine": host.engine.name,
            "seconds": blocks / holding.throughput,
            "heap": js.engineModule().HEAPU8.length,
        }
    )
