"""Keeps what the relay's network serves announced in the DHT, and takes it back at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import trio

from pyodide_node.errors import KwaaiNetError
from relay_server.bridge.feed import Served, read_map
from relay_server.bridge.host import DhtHost
from relay_server.bridge.petals import Announced, announced, items
from relay_server.bridge.settings import BridgeSettings

__all__ = ["Bridge"]

_FAREWELL: Final = 10.0
"""Seconds to take announcements back when the bridge ends; what is left expires."""


class Bridge:
    """`say` gets what people should read; `read(relay, models)` is `feed.read_map`; `now()` gives
    seconds since 1970."""

    def __init__(
        self,
        settings: BridgeSettings,
        host: DhtHost,
        say: Callable[[str], None],
        read: Callable[[str, int], list[Served]] = read_map,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._host = host
        self._say = say
        self._read = read
        self._now = now
        self._relay = settings.relay.rstrip("/")
        self._out: dict[tuple[str, str], Announced] = {}
        self._sent = 0.0
        self._told = 0.0
        """When the relay last told what is served."""
        self._problems: dict[str, str] = {}

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            while True:
                await self.look()
                self._host.forget()
                await trio.sleep(self._settings.look_every)
        finally:
            with trio.move_on_after(_FAREWELL, shield=True):
                await self._announce([])

    async def look(self) -> None:
        """Read the map once, and announce what has to be."""
        try:
            served = await trio.to_thread.run_sync(
                self._read, self._relay, self._settings.max_models, abandon_on_cancel=True
            )
            self._told = self._now()
            self._trouble("relay", "")
        except KwaaiNetError as error:
            self._trouble("relay", str(error))
            if self._now() - self._told < self._settings.life:
                return  # a relay that restarts serves the same a minute later
            served = []
        await self._announce(
            list(
                announced(
                    served,
                    peer=self._host.name,
                    prefix=self._settings.prefix,
                    state=self._settings.announce_state,
                    name=self._settings.public_name,
                    relay=self._relay,
                )
            )
        )

    async def _announce(self, wanted: Sequence[Announced]) -> None:
        """Send what is new, take back what is gone, and renew all when it is time."""
        now = self._now()
        want = {one.place: one for one in wanted}
        gone = [one for place, one in self._out.items() if place not in want]
        changed = want.keys() != self._out.keys()
        if not changed and now - self._sent < self._settings.every:
            return
        back = [one for one in (one.withdrawn() for one in gone) if one is not None]
        send = items([*want.values(), *back], now + self._settings.life)
        self._out = want
        if not send:
            return
        self._host.responder.announce(send)
        peers = await self._host.bootstrap()
        taken = await self._host.store(send)
        if taken:
            self._sent = now
        if changed:
            blocks = sum(1 for one in want.values() if one.subkey == self._host.name)
            self._say(f"{blocks} blocks announced, {len(back)} taken back")
        reason = "no peer took them" if peers else "no first peer answers"
        self._trouble("peers", "" if taken else f"nobody has the announcements: {reason}")

    def _trouble(self, of: str, problem: str) -> None:
        """Say what is wrong, once."""
        if problem and problem != self._problems.get(of):
            self._say(problem)
        self._problems[of] = problem
