"""Keeps connections to the relays that the operator named and that others told of. Runs in trio."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import trio
from libp2p.peer.peerinfo import info_from_p2p_addr
from multiaddr import Multiaddr

from relay_server.federation.ledger import Ledger

__all__ = ["Dialler"]

_LOOK_EVERY: Final = 1.0
_DEADLINE: Final = 10.0
_BACKOFF_FIRST, _BACKOFF_LAST = 1.0, 60.0


@dataclass(slots=True)
class _Dial:
    next: float = 0.0
    delay: float = _BACKOFF_FIRST
    busy: bool = False


class Dialler:
    """`bootstrap` maps peer ids to whole multiaddrs; `own` is this relay's peer id."""

    def __init__(self, host: Any, own: str, bootstrap: Mapping[str, str], ledger: Ledger) -> None:
        self._host = host
        self._own = own
        self._bootstrap = bootstrap
        self._ledger = ledger
        self._dials: dict[str, _Dial] = {}
        self._random = random.Random()  # noqa: S311 - spreads dials

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                self._look(nursery)
                await trio.sleep(_LOOK_EVERY)

    def _look(self, nursery: trio.Nursery) -> None:
        now = trio.current_time()
        here = {self._own, *(str(peer) for peer in self._host.get_connected_peers())}
        wanted = self._wanted()
        self._dials = {name: dial for name, dial in self._dials.items() if name in wanted}
        for name, addresses in wanted.items():
            dial = self._dials.setdefault(name, _Dial())
            if name in here:
                dial.delay, dial.next = _BACKOFF_FIRST, 0.0
            elif not dial.busy and dial.next <= now:
                dial.busy = True
                nursery.start_soon(self._dial, dial, addresses)

    def _wanted(self) -> dict[str, Sequence[str]]:
        wanted: dict[str, Sequence[str]] = {}
        for relay in self._ledger.relays:
            wanted[relay.name] = [f"{at}/p2p/{relay.name}" for at in relay.info.addresses]
        for name, address in self._bootstrap.items():
            wanted[name] = [address, *wanted.get(name, ())]
        return wanted

    async def _dial(self, dial: _Dial, addresses: Sequence[str]) -> None:
        for address in addresses:
            # libp2p's errors have no common root, and any of them means: not now.
            with contextlib.suppress(Exception), trio.move_on_after(_DEADLINE):
                await self._host.connect(info_from_p2p_addr(Multiaddr(address)))
                break
        dial.next = trio.current_time() + dial.delay * (0.5 + self._random.random())
        dial.delay = min(2 * dial.delay, _BACKOFF_LAST)
        dial.busy = False
