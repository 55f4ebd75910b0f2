"""Loads embedding and head under the caps, as a node does when it is asked, and uses both."""

from __future__ import annotations

import hashlib
import json
import time
from functools import partial
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
from pyodide_node.inference.own_ends import OwnEnds, StoredEmbedding
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
    read, embedding = Delivery(host, model, storage), manifest.embed.sha256
    stored = StoredEmbedding(partial(read.keep, embedding), partial(read.piece, embedding))
    own = OwnEnds(host, budget, manifest, read, stored)
    assert own.reserve()
    seconds, begun = {}, time.monotonic()

    def took(what: str) -> None:
        nonlocal begun
        now = time.monotonic()
        seconds[what], begun = now - begun, now

    ends = await own.get()
    took("loading")
    ids = given["ids"]
    await ends.prepare(ids)
    took("rows")
    first, looked_up = b"", hashlib.sha256()
    for at in range(0, len(ids), 64):
        hidden = await ends.embed(ids[at : at + 64])
        looked_up.update(hidden)
        first = first or hidden[: manifest.hidden_bytes(1)]
    took("embedding")
    best = await ends.head(first, 1.0, 4)
    took("head")
    return json.dumps(
        {
            "rows": looked_up.hexdigest(),
            "ids": list(best.ids),
            "values": list(best.values),
            "logsumexp": best.logsumexp,
            "seconds": seconds,
            "heap": js.engineModule().HEAPU8.length,
        }
    )
