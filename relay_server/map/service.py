"""The map as a part of the running relay: its routes, and what it does as time passes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, TypeVar

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from pyodide_node.errors import StoreError
from pyodide_node.hosts.base import Clock
from relay_server.files import BrowserFiles, accepted
from relay_server.headers import headers_for
from relay_server.hub import Hub
from relay_server.logs import LOG
from relay_server.map.document import ModelView
from relay_server.map.feed import BEAT
from relay_server.map.history import EVERY
from relay_server.map.network import Body, NetworkMap
from relay_server.map.socket import PATH
from relay_server.models import ModelShelf
from relay_server.settings import RelaySettings

if TYPE_CHECKING:
    from relay_server.map.archive import Archive

__all__ = ["MapService"]

_A = TypeVar("_A")
_T = TypeVar("_T")

_PAGE: Final = "map.html"
_BEATS_PER_SAMPLE: Final = int(EVERY / BEAT)


class MapService:
    """`async with MapService(settings, hub, clock) as service`, in the relay's event loop."""

    def __init__(self, settings: RelaySettings, hub: Hub, clock: Clock) -> None:
        loop = asyncio.get_running_loop()
        self.map = NetworkMap(hub, clock, loop.call_later, settings.map_viewers)
        self._shelf = ModelShelf(settings.models) if settings.models is not None else None
        self._files = BrowserFiles(settings.cdn) if settings.cdn is not None else None
        self._clock = clock
        self._archive = _archive_in(settings.state) if settings.state is not None else None
        self._worker = ThreadPoolExecutor(1, "relay map")
        self._beating: asyncio.Task[None] | None = None

    async def __aenter__(self) -> MapService:
        await self._read_shelf()
        self._beating = asyncio.create_task(self._beat(), name="relay map")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.map.close()
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        if self._archive is not None:  # whatever it does, it ends before it is closed
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._worker, self._archive.close)
        self._worker.shutdown()

    def models(self) -> list[ModelView]:
        """As last published."""
        return self.map.models

    @property
    def routes(self) -> list[BaseRoute]:
        routes: list[BaseRoute] = [
            Route("/map.json", self._document),
            Route("/map/history.json", self._history),
            Route(PATH, _upgrade_required),
        ]
        if self._files is not None:
            routes += [Route("/", _to_the_map), Route("/map", self._page)]
        return routes

    async def _document(self, request: Request) -> Response:
        return _answer(request, self.map.document())

    async def _history(self, request: Request) -> Response:
        return _answer(request, self.map.past())

    async def _page(self, request: Request) -> Response:
        assert self._files is not None
        return await self._files.get_response(_PAGE, request.scope)

    async def _beat(self) -> None:
        await self._recall()
        beats = 0
        while True:
            await asyncio.sleep(BEAT)
            await self._read_shelf()
            self.map.beat()
            beats += 1
            if beats % _BEATS_PER_SAMPLE == 0:
                await self._remember()

    async def _recall(self) -> None:
        if self._archive is not None:
            samples = await self._kept(self._archive.read, self._clock.wall())
            self.map.recall(samples or [])

    async def _remember(self) -> None:
        sample = self.map.remember()
        if self._archive is not None:
            await self._kept(self._archive.keep, sample)

    async def _kept(self, call: Callable[[_A], _T], argument: _A) -> _T | None:
        """One call of the archive, after those before it. A map without a past is one too."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._worker, call, argument)
        except StoreError as error:
            LOG.error("state_failed", reason=str(error))
            return None

    async def _read_shelf(self) -> None:
        if self._shelf is not None:
            self.map.offer(await anyio.to_thread.run_sync(self._shelf.models))


def _archive_in(directory: Path) -> Archive:
    # SQLAlchemy comes with it: a relay that keeps nothing does without.
    from relay_server.map.archive import Archive

    return Archive(directory)


def _answer(request: Request, body: Body) -> Response:
    headers = headers_for("map.json") | {"ETag": body.etag, "Vary": "Accept-Encoding"}
    if request.headers.get("if-none-match", "").removeprefix("W/") == body.etag:
        return Response(status_code=304, headers=headers)
    data = body.data
    if accepted(request.headers.get("accept-encoding", ""), "gzip"):
        data, headers["Content-Encoding"] = body.zipped, "gzip"
    return Response(data, media_type="application/json", headers=headers)


async def _to_the_map(request: Request) -> Response:
    return RedirectResponse("map", 307, headers=headers_for("map"))


async def _upgrade_required(request: Request) -> Response:
    headers = headers_for("map/feed") | {"Upgrade": "websocket", "Connection": "Upgrade"}
    return PlainTextResponse("the map's feed is a WebSocket\n", status_code=426, headers=headers)
