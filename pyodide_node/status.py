"""A node's state, as the JSON that pages and command lines show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyodide_node import __version__
from pyodide_node.budget import MEGABYTE, Budget
from pyodide_node.delivery.catalog import Model
from pyodide_node.delivery.delivery import Delivery
from pyodide_node.delivery.storage import Storage
from pyodide_node.hosts.base import Host
from pyodide_node.inference.work import Work
from pyodide_node.mesh.mesh import Mesh
from pyodide_node.mesh.peer import did_key, peer_id

__all__ = ["Facts", "describe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The parts of a node that its state is read off."""

    state: str
    host: Host
    budget: Budget
    storage: Storage
    mesh: Mesh
    model: Model | None
    work: Work | None
    delivery: Delivery | None


def describe(facts: Facts) -> dict[str, Any]:
    """The same keys on every host; `KwaaiNet.status()` gives them to pages as they are."""
    keys, work, delivery = facts.host.keys, facts.work, facts.delivery
    return {
        "state": facts.state,
        "version": __version__,
        "peer": peer_id(keys.public_key),
        "did": did_key(keys.public_key),
        "host": facts.host.kind,
        "engine": facts.host.engine.name,
        "model": facts.model and _model(facts.model),
        "span": work.holding.span if work else None,
        "throughput": round(work.holding.throughput, 1) if work else 0.0,
        "rate": round(work.holding.rate, 1) if work else 0.0,
        "problem": work.presence.problem if work else "",
        "relay": _relay(facts.mesh),
        "peers": _peers(facts.mesh, facts.model) if facts.model else [],
        "budget": _budget(facts),
        "served": {
            "tokens": work.serving.totals.tokens if work else 0,
            "sessions": work.serving.totals.sessions if work else 0,
        },
        "downloaded": sum(delivery.downloaded.values()) if delivery else 0,
        "sources": delivery.downloaded if delivery else {},
        "seeded": delivery.seeded if delivery else 0,
    }


def _model(model: Model) -> dict[str, Any]:
    return {
        "name": model.manifest.name,
        "id": model.id,
        "blocks": model.manifest.blocks,
        "context": model.manifest.context_length,
        "chat": model.manifest.chat is not None,
    }


def _relay(mesh: Mesh) -> dict[str, Any]:
    relay = mesh.relay
    return {
        "url": relay.url if relay else "",
        "connected": mesh.connected,
        "rtt_ms": _milliseconds(relay.rtt) if relay else None,
        "error": relay.last_error if relay and not relay.connected else mesh.last_error,
    }


def _budget(facts: Facts) -> dict[str, Any]:
    budget, limits = facts.budget, facts.budget.limits
    return {
        "cpu": {"limit": limits.cpu, "used": round(budget.cpu.used(), 1)},
        "memory": {"limit": limits.memory, "used": round(budget.memory_used / MEGABYTE)},
        "storage": {
            "limit": limits.storage,
            "used": round(facts.storage.used / MEGABYTE, 1),
            "persistent": facts.host.store.persistent,
        },
    }


def _peers(mesh: Mesh, model: Model) -> list[dict[str, Any]]:
    links = {link.peer: link for link in mesh.links()}
    described = []
    for entry in mesh.entries(bytes.fromhex(model.id)):
        said, link = entry.announcement, links.get(entry.public_key)
        path = link.path if link else None
        rtt = link.paths.rtt(path) if link and path else None
        described.append(
            {
                "peer": peer_id(entry.public_key),
                "host": said.host,
                "engine": said.engine,
                "first_block": said.first,
                "last_block": said.last,
                "path": path,
                "route": (link.route if link else None) if path == "webrtc" else path,
                "rtt_ms": _milliseconds(rtt),
                "problem": link.last_error if link else "",
            }
        )
    return described


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
