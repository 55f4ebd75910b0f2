"""The simulated host: a virtual clock, a network in memory, faults on demand.

@virtual
async def test_two_hosts_meet() -> None:
    network = SimulatedNetwork(seed=1)
    network.relay("wss://relay", handler)
    ada, ben = simulated_host(network, "ada"), simulated_host(network, "ben")
"""

from .clock import Deadlock, SimulatedClock, VirtualLoop, run_virtual, virtual
from .engine import EngineFaults, SimulatedEngine
from .host import SimulatedHost, simulated_host
from .keys import simulated_keys
from .model import SimulatedModel, simulated_model
from .network import Link, SimulatedNetwork
from .peer import SimulatedPeer
from .pipe import Pipe
from .relay import RelayConnection
from .store import SimulatedStore, StoreFaults
from .transport import SimulatedTransport

__all__ = [
    "Deadlock",
    "EngineFaults",
    "Link",
    "Pipe",
    "RelayConnection",
    "SimulatedClock",
    "SimulatedEngine",
    "SimulatedHost",
    "SimulatedModel",
    "SimulatedNetwork",
    "SimulatedPeer",
    "SimulatedStore",
    "SimulatedTransport",
    "StoreFaults",
    "VirtualLoop",
    "run_virtual",
    "simulated_host",
    "simulated_keys",
    "simulated_model",
    "virtual",
]
