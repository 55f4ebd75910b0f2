"""Fetches a set of parts from whoever has them: peers first, then mirrors, then IPFS.

What has come is stored and counted at once, so that a haul that breaks off is taken up where it
ended. Parts are asked for in an order that differs from node to node: nodes that start together
fetch different parts from the mirrors, and swap the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence

from pyodide_node.delivery.parts import Part
from pyodide_node.delivery.peers import Missing, Peers
from pyodide_node.delivery.sources import HttpSource, SourceKind
from pyodide_node.delivery.storage import Storage
from pyodide_node.delivery.wants import RUN, Want, Wants
from pyodide_node.errors import IntegrityError, KwaaiNetError, RemoteError, Unreachable
from pyodide_node.hosts.base import Host

__all__ = ["Haul"]

_HTTP = 4
"""Requests under way at once, over all mirrors and gateways."""
_PER_PEER = 2
"""Parts under way from one peer: while one ends, the next has begun."""
_PART_BY = 60.0
"""Seconds for one part by HTTP: a source that trickles is as good as none."""
_DEFER = 5.0
"""Seconds that a part is left to a peer that says it is fetching it."""
_LOOK = 0.25
"""Seconds after which to look again, though nothing was told."""
_BRISK = 2_000_000
"""Bytes a second from all peers together below which mirrors help out."""
_MEASURED = 3.0
_LARGE = 1 << 20
"""Bytes from which on it is worth waiting for peers."""


class Haul:
    """One set of parts. `came(part, kind, kept)` is told of each.

    `storage` says what may be kept; with `loose` off, the haul ends early where it has no room.
    """

    def __init__(
        self,
        host: Host,
        storage: Storage,
        sources: Sequence[HttpSource],
        peers: Peers | None,
        came: Callable[[Part, SourceKind, bool], None],
        *,
        loose: bool,
    ) -> None:
        self._host = host
        self._storage = storage
        self._sources = sources
        self._peers = peers
        self._came = came
        self._loose = loose
        self._wants = Wants((), b"")
        self._http: set[asyncio.Task[None]] = set()
        self._given: dict[bytes, set[asyncio.Task[None]]] = {}
        self._from_peers: deque[tuple[float, int]] = deque()
        self._peers_since: float | None = None
        self._wake = asyncio.Event()
        self._problem: KwaaiNetError | None = None
        self.full = False
        """Whether it ended for want of room."""

    def wake(self) -> None:
        """Something may have changed outside."""
        self._wake.set()

    def from_elsewhere(self) -> list[int]:
        """Numbers of the parts that are on their way by HTTP."""
        return [want.part.number for want in self._wants if want.by_http]

    async def run(self, parts: Iterable[Part]) -> None:
        """Raises IntegrityError or Unreachable when nobody has some part whole."""
        self._wants = Wants(parts, self._host.keys.public_key)
        try:
            while self._wants and not self.full:
                self._wake.clear()
                self._dispatch()
                if not self._http and not any(self._given.values()) and self._hopeless():
                    raise self._failure()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK):
                        await self._wake.wait()
        finally:
            tasks = [*self._http, *(task for crew in self._given.values() for task in crew)]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # --- who fetches what -----------------------------------------------------------------

    def _dispatch(self) -> None:
        for peer in self._peers.able() if self._peers else ():
            crew = self._given.setdefault(peer, set())
            while len(crew) < _PER_PEER and (want := self._for_peer(peer)):
                if self._peers_since is None:
                    self._peers_since = self._now()
                want.claimed = True
                self._start(self._ask_peer(peer, want), crew)
        while len(self._http) < _HTTP and (found := self._for_http()):
            source, run = found
            for want in run:
                want.claimed = want.by_http = True
            self._start(self._pull(source, run), self._http)

    def _start(self, work: Coroutine[None, None, None], crew: set[asyncio.Task[None]]) -> None:
        task = asyncio.create_task(work, name="haul")
        crew.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            crew.discard(task)
            self._wake.set()

        task.add_done_callback(ended)

    def _for_peer(self, peer: bytes) -> Want | None:
        assert self._peers is not None
        for want in self._wants:
            if want.claimed or peer in want.refused:
                continue
            if self._peers.has(peer, want.part.number):
                return want
        return None

    def _for_http(self) -> tuple[HttpSource, list[Want]] | None:
        if self._awaited():
            return None
        brisk = self._brisk()
        for want in self._wants:
            if want.claimed or (brisk and self._left_to_peers(want)):
                continue
            source = self._source(want)
            if source is not None:
                return source, self._run_of(source, want, brisk)
        return None

    def _source(self, want: Want) -> HttpSource | None:
        now = self._now()
        able = (one for one in self._sources if one.able(now) and one not in want.refused)
        return next(able, None)

    def _run_of(self, source: HttpSource, want: Want, brisk: bool) -> list[Want]:
        """This want, and those that lie behind it in the file and suit the same request."""
        run = [want]
        if want.part.offset is None or source.kind == "ipfs":
            return run
        most = RUN if source.ranges else 1 << 12
        while len(run) < most:
            after = self._wants.after(run[-1])
            if after is None:
                break
            if source in after.refused or (brisk and self._left_to_peers(after)):
                break
            run.append(after)
        return run

    def _left_to_peers(self, want: Want) -> bool:
        if self._peers is None:
            return False
        number = want.part.number
        if any(
            self._peers.has(peer, number) for peer in self._peers.able() if peer not in want.refused
        ):
            return True
        if not self._peers.soon(number):
            return False
        if want.deferred is None:
            want.deferred = self._now()
        return self._now() - want.deferred < _DEFER

    def _awaited(self) -> bool:
        """Whether to wait for peers' answers: not for what would be here before they come."""
        return self._wants.size >= _LARGE and self._peers is not None and self._peers.awaited()

    def _brisk(self) -> bool:
        """Whether peers bring enough that mirrors may be spared."""
        now = self._now()
        while self._from_peers and self._from_peers[0][0] < now - _MEASURED:
            self._from_peers.popleft()
        if self._peers_since is None or now - self._peers_since < _MEASURED:
            return True
        return sum(size for _, size in self._from_peers) >= _BRISK * _MEASURED

    def _hopeless(self) -> bool:
        """Whether some part is to be had nowhere: nobody is at work, and nobody may be asked."""
        if self._peers is not None and self._peers.awaited():
            return False
        return any(
            not want.claimed and self._source(want) is None and not self._left_to_peers(want)
            for want in self._wants
        )

    def _failure(self) -> KwaaiNetError:
        tried = [source.base for source in self._sources]
        if self._peers is not None:
            tried.insert(0, f"{len(self._given)} peers")
        problems = [source.problem for source in self._sources if source.problem is not None]
        problem = self._problem or (problems[-1] if problems else None)
        if problem is None:
            return Unreachable("this model has no source that could be asked", tried=tried)
        return type(problem)(f"{problem} (tried {', '.join(tried)})", **problem.data)

    # --- fetching -------------------------------------------------------------------------

    async def _pull(self, source: HttpSource, run: list[Want]) -> None:
        keep = await self._room(sum(want.part.size for want in run))
        if keep is None:
            return
        left = {want.part.sha256: want for want in run}
        deadline = asyncio.timeout(_PART_BY)
        loop = asyncio.get_running_loop()

        def got(sha256: str, kept: bool) -> None:
            want = left.pop(sha256, None)
            if want is not None:
                if not deadline.expired():
                    deadline.reschedule(loop.time() + _PART_BY)
                self._done(want, source.kind, kept)
                self._release(want.part.size, keep)

        url, offset = source.address(run[0].part)
        pieces = [(want.part.sha256, want.part.size) for want in run]
        try:
            async with deadline:
                if not await self._host.store.pull(url, offset, pieces, keep=keep, got=got):
                    source.ranges = False
            source.worked()
        except IntegrityError as error:
            self._problem = source.problem = error
            source.lied(self._now())
        except (RemoteError, TimeoutError) as error:
            told = Unreachable(f"{url} stalls", url=url)
            self._problem = source.problem = error if isinstance(error, RemoteError) else told
            if len(left) < len(run):
                source.worked()  # it broke off: what is left is asked for again
            else:
                run[0].refused.add(source)
                source.failed(self._now())
        finally:
            for want in left.values():
                want.claimed = want.by_http = False
                self._release(want.part.size, keep)

    async def _ask_peer(self, peer: bytes, want: Want) -> None:
        assert self._peers is not None
        part = want.part
        try:
            content = await self._peers.part(peer, part.number, part.size)
            if part.sha256 not in self._wants:
                return
            keep = await self._room(part.size)
            if keep is None:
                return
            try:
                kept = await self._host.store.take(part.sha256, content, keep=keep)
            finally:
                self._release(part.size, keep)
        except IntegrityError:
            self._peers.shun(peer, lied=True)
        except Missing:
            want.refused.add(peer)
        except RemoteError:
            self._peers.shun(peer, lied=False)
        else:
            self._from_peers.append((self._now(), part.size))
            self._done(want, "peers", kept)
        finally:
            want.claimed = False

    async def _room(self, size: int) -> bool | None:
        """Whether to keep it; None: it has no place here, and the haul ends."""
        keep = await self._storage.room(size)
        if keep or self._loose:
            return keep
        self.full = True
        self._wake.set()
        return None

    def _release(self, size: int, kept: bool) -> None:
        if kept:
            self._storage.release(size)

    def _done(self, want: Want, kind: SourceKind, kept: bool) -> None:
        part = want.part
        if not self._wants.done(part.sha256):
            return
        self._storage.came(part.sha256, part.size, kept)
        self._came(part, kind, kept)
        if not kept and not self._loose:
            self.full = True
        self._wake.set()

    def _now(self) -> float:
        return self._host.clock.monotonic()
