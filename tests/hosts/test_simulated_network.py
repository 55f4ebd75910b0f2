"""Links, cuts and deaths."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

import pytest

from pyodide_node.errors import EngineError, Unreachable
from pyodide_node.hosts.base import Signal
from pyodide_node.hosts.simulated import (
    RelayConnection,
    SimulatedNetwork,
    run_virtual,
    simulated_host,
    simulated_model,
    virtual,
)
from tests.hosts.pairs import End, Pair
from tests.hosts.test_relay_socket import Dialled

RELAY = "wss://relay"


def ignore(_: object) -> None:
    pass


def now() -> float:
    return asyncio.get_running_loop().time()


async def echo(connection: RelayConnection) -> None:
    async for message in connection:
        connection.send(message)


def make(**settings: float) -> tuple[SimulatedNetwork, Pair]:
    network = SimulatedNetwork(seed=1, **settings)
    return network, Pair(simulated_host(network, "ada"), simulated_host(network, "ben"))


@virtual
async def test_a_message_takes_its_size_and_the_delay() -> None:
    network = SimulatedNetwork(delay=0.05, bandwidth=1000)
    network.relay(RELAY, echo)
    dialled = await Dialled.dial(simulated_host(network, "ada"), RELAY)
    assert now() == pytest.approx(0.2)  # two round trips
    dialled.socket.send(bytes(960))
    await dialled.inbox.get()
    assert now() == pytest.approx(0.2 + 2 * (1.0 + 0.05))


@virtual
async def test_jitter_never_changes_the_order() -> None:
    _, pair = make(delay=0.01, jitter=0.5)
    async with pair:
        await pair.open()
        for number in range(200):
            pair.ada.peer.send(bytes([number]))
        assert [(await pair.ben.inbox.get())[0] for _ in range(200)] == list(range(200))


@virtual
async def test_a_healed_cut_loses_nothing() -> None:
    network, pair = make(silence=10)
    async with pair:
        await pair.open()
        pair.ada.peer.send(b"in flight")
        network.cut("ada", "ben")
        pair.ada.peer.send(b"held")
        await asyncio.sleep(9)
        assert pair.ben.inbox.empty()
        network.heal("ada", "ben")
        pair.ada.peer.send(b"after")
        got = [await pair.ben.inbox.get() for _ in range(3)]
        assert got == [b"in flight", b"held", b"after"]
        # The first cut's silence is over; the second has its own.
        network.cut("ada", "ben")
        await asyncio.sleep(9)
        assert not pair.ada.reasons


@virtual
async def test_a_long_cut_closes_both_ends() -> None:
    network, pair = make(silence=10)
    async with pair:
        await pair.open()
        network.cut("ada", "ben")
        since = now()
        pair.ada.peer.send(b"lost")
        await pair.ada.ended.wait()
        await pair.ben.ended.wait()
        assert now() == since + 10
        network.heal("ada", "ben")
        await asyncio.sleep(1)
        assert pair.ben.inbox.empty()


@pytest.mark.parametrize(("silent", "after"), [(False, 0.01), (True, 15.0)])
def test_a_death_is_heard_of_by_others_only(silent: bool, after: float) -> None:
    async def main() -> None:
        network, pair = make()
        await pair.open()
        since = now()
        network.kill("ada", silent=silent)
        pair.ada.peer.send(b"from the grave")
        await pair.ben.ended.wait()
        assert now() == pytest.approx(since + after)
        assert pair.ben.inbox.empty()
        assert not pair.ada.reasons

    run_virtual(main())


@virtual
async def test_a_dead_host_can_do_nothing() -> None:
    network, model = SimulatedNetwork(), simulated_model()
    network.relay(RELAY, echo)
    model.publish(network.web, "https://web")
    ada = simulated_host(network, "ada")

    async def blob(sha256: str, size: int) -> bytes | None:
        url, pieces = f"https://web/blobs/{sha256}", [(sha256, size)]
        await ada.store.pull(url, None, pieces, keep=True, got=lambda *told: None)
        return await ada.store.join(pieces)

    span = await ada.engine.load_span(model.manifest, 0, 2, blob)
    network.kill("ada")
    with pytest.raises(Unreachable):
        await ada.transport.dial(RELAY, ignore, ignore)
    with pytest.raises(Unreachable):
        await ada.store.fetch("https://web/manifest.json", 1 << 20)
    with pytest.raises(EngineError):
        await span.run(span.open_cache(0, 2, 1), bytes(128), 0, 1)
    network.revive("ada")
    await ada.transport.dial(RELAY, ignore, ignore)


@virtual
async def test_a_killed_relay_stops_serving_until_it_is_back() -> None:
    network = SimulatedNetwork()
    network.relay(RELAY, echo)
    ada = simulated_host(network, "ada")
    dialled = await Dialled.dial(ada, RELAY)
    network.kill(RELAY)
    await dialled.ended.wait()
    with pytest.raises(Unreachable):
        await ada.transport.dial(RELAY, ignore, ignore)
    network.relay(RELAY, echo)
    again = await Dialled.dial(ada, RELAY)
    again.socket.send(b"hello")
    assert await again.inbox.get() == b"hello"


@virtual
async def test_a_cut_relay_takes_the_whole_deadline() -> None:
    network = SimulatedNetwork()
    network.relay(RELAY, echo)
    network.cut("ada", RELAY)
    with pytest.raises(Unreachable):
        await simulated_host(network, "ada").transport.dial(RELAY, ignore, ignore)
    assert now() == 10


@virtual
async def test_webrtc_can_be_blocked_for_a_pair_or_a_host() -> None:
    network, pair = make()
    network.block_webrtc("ada", "ben")
    async with pair:
        await pair.ada.ended.wait()
        await pair.ben.ended.wait()
        assert pair.ada.reasons == ["ICE did not connect"]
    network.block_webrtc("cyd")
    with pytest.raises(Unreachable):
        End(simulated_host(network, "cyd"), True)


@virtual
async def test_a_relay_in_the_middle_gets_no_connection() -> None:
    """Swapping both descriptions for one's own leads to oneself, never between the two."""
    network = SimulatedNetwork()
    mallory = End(simulated_host(network, "mallory"), True)
    await asyncio.sleep(1)
    (offer,) = [signal for signal in mallory.said if signal.kind == "offer"]

    def swap(sender: End, signal: Signal) -> Iterable[Signal]:
        return [replace(signal, sdp=offer.sdp) if signal.kind == "offer" else signal]

    ada, ben = simulated_host(network, "ada"), simulated_host(network, "ben")
    async with Pair(ada, ben, post=swap) as pair:
        await pair.ada.ended.wait()
        await pair.ben.ended.wait()
        assert pair.ada.openings == pair.ben.openings == 0
    await mallory.peer.close()


@virtual
async def test_a_slow_engine_takes_its_time_and_a_lying_one_lies() -> None:
    network, model = SimulatedNetwork(), simulated_model()
    ada = simulated_host(network, "ada")

    async def blob(sha256: str, size: int) -> bytes:
        return model.blobs[sha256]

    span = await ada.engine.load_span(model.manifest, 0, 4, blob)
    cache, row = span.open_cache(0, 4, 8), bytes(128)
    true = await span.run(cache, row, 0, 1)
    assert now() == pytest.approx(0.004)
    ada.engine.faults.slow = 100
    assert await span.run(cache, row, 0, 1) == true
    assert now() == pytest.approx(0.404)
    ada.engine.faults.lie = 0.5
    assert await span.run(cache, row, 0, 1) != true
    ada.engine.faults.crashes = True
    with pytest.raises(EngineError):
        await span.run(cache, row, 0, 1)
    ada.engine.faults.refuses = True
    with pytest.raises(EngineError):
        await ada.engine.load_ends(model.manifest, blob)


def test_the_same_seed_gives_the_same_run() -> None:
    async def run(seed: int) -> list[float]:
        network = SimulatedNetwork(seed=seed, jitter=0.1)
        network.relay(RELAY, echo)
        dialled = await Dialled.dial(simulated_host(network, "ada"), RELAY)
        times = []
        for _ in range(20):
            dialled.socket.send(b"ping")
            await dialled.inbox.get()
            times.append(now())
        return times

    assert run_virtual(run(1)) == run_virtual(run(1)) != run_virtual(run(2))
    assert simulated_model(seed=1).manifest.model_id == simulated_model(seed=1).manifest.model_id
    assert simulated_model(seed=1).manifest.model_id != simulated_model(seed=2).manifest.model_id
