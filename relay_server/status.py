"""What the relay tells about itself: health and metrics, nothing of anybody."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from relay_server.headers import headers_for
from relay_server.hub import Hub
from relay_server.map.document import ModelView
from relay_server.metrics import Metrics

__all__ = ["status_routes"]


def status_routes(hub: Hub, models: Callable[[], Sequence[ModelView]] = tuple) -> list[Route]:
    """`models` tells what the network serves of them."""
    figures = Metrics(hub, models)

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n", headers=headers_for("healthz"))

    async def readyz(request: Request) -> Response:
        """For load balancers: whether one more node would be let in."""
        full = hub.full
        return PlainTextResponse(
            f"{full or 'ok'}\n", 503 if full else 200, headers=headers_for("readyz")
        )

    async def metrics_text(request: Request) -> Response:
        body, media_type = figures.text(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": media_type})

    return [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics_text),
    ]
