"""A whole simulated host, with handles on what may be made to fail."""

from __future__ import annotations

from dataclasses import dataclass

from pyodide_node.hosts.base import Host

from .clock import SimulatedClock
from .engine import SimulatedEngine
from .keys import simulated_keys
from .network import SimulatedNetwork
from .store import SimulatedStore
from .transport import SimulatedTransport

__all__ = ["SimulatedHost", "simulated_host"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedHost(Host):
    """A `Host` whose ports show their simulated sides: `host.store.faults`, `host.clock.skew`."""

    name: str
    clock: SimulatedClock
    store: SimulatedStore
    engine: SimulatedEngine


def simulated_host(network: SimulatedNetwork, name: str, *, skew: float = 0.0) -> SimulatedHost:
    """The host `name` of `network`; made twice, it has the same keys and an empty store.

    `skew` seconds set its wall clock off.
    """
    return SimulatedHost(
        kind="simulated",
        name=name,
        clock=SimulatedClock(skew),
        keys=simulated_keys(network.seed, name),
        transport=SimulatedTransport(network, name),
        engine=SimulatedEngine(network, name),
        store=SimulatedStore(network, name),
    )
