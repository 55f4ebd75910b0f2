"""The HTTP side of the relay: browser files, models, and what it tells about itself."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp

from relay_server.files import BrowserFiles
from relay_server.guard import Guard
from relay_server.headers import headers_for
from relay_server.hub import Hub
from relay_server.map.service import MapService
from relay_server.metered import Metered
from relay_server.models import ModelShelf
from relay_server.settings import RelaySettings
from relay_server.status import status_routes

__all__ = ["make_app"]


def make_app(
    settings: RelaySettings,
    hub: Hub,
    network: MapService | None = None,
    api: ASGIApp | None = None,
) -> Starlette:
    """Everything but `/mesh`, which is no HTTP once it is upgraded (see websocket.py).

    `api` answers under `/v1`.
    """
    routes: list[BaseRoute] = [Route("/mesh", _upgrade_required)]
    if network is None:
        routes += status_routes(hub)
    else:
        routes += status_routes(hub, network.models)
        routes += network.routes
    if settings.models is not None:
        routes += ModelShelf(settings.models, settings.mirrors).routes
    if api is not None:
        routes.append(Mount("/v1", api))
    if settings.cdn is not None:
        routes.append(Mount("/", BrowserFiles(settings.cdn, settings.origins)))
    guard = Middleware(Guard, settings=settings, gate=hub.gate, counters=hub.counters)
    metered = Middleware(Metered, counters=hub.counters)
    return Starlette(routes=routes, middleware=[guard, metered])


async def _upgrade_required(request: Request) -> Response:
    headers = headers_for("mesh") | {"Upgrade": "websocket", "Connection": "Upgrade"}
    return PlainTextResponse("the mesh is a WebSocket\n", status_code=426, headers=headers)
