"""What the relay tells about itself: health and metrics, nothing of anybody."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from relay_server.headers import headers_for
from relay_server.hub import Hub

__all__ = ["metrics", "status_routes"]


def status_routes(hub: Hub) -> list[Route]:
    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n", headers=headers_for("healthz"))

    async def readyz(request: Request) -> Response:
        """For load balancers: whether one more node would be let in."""
        full = hub.full
        return PlainTextResponse(
            f"{full or 'ok'}\n", 503 if full else 200, headers=headers_for("readyz")
        )

    async def metrics_text(request: Request) -> Response:
        text = "".join(metrics(hub))
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    return [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics_text),
    ]


def metrics(hub: Hub) -> Iterable[str]:
    """Prometheus' text format, version 0.0.4."""
    counters = hub.counters
    yield from _family("connections", "gauge", "Nodes connected.", {"": len(hub)})
    yield from _family("handshakes", "gauge", "Connections not entered yet.", {"": hub.entering})
    yield from _family("records", "gauge", "Announcements held.", {"": len(hub.directory)})
    yield from _family("entered_total", "counter", "Nodes entered.", {"": counters.entered})
    yield from _family("published_total", "counter", "Records taken.", {"": counters.published})
    yield from _family(
        "forwarded_frames_total", "counter", "Frames passed on.", {"": counters.forwarded_frames}
    )
    yield from _family(
        "forwarded_bytes_total", "counter", "Bytes passed on.", {"": counters.forwarded_bytes}
    )
    yield from _family(
        "undelivered_total", "counter", "Frames not passed on.", _labelled(counters.undelivered)
    )
    yield from _family(
        "refused_total", "counter", "Connections refused or cut.", _labelled(counters.refused)
    )
    yield from _family(
        "throttled_total", "counter", "Times a sender was slowed.", {"": counters.throttled}
    )
    yield from _family(
        "stun_answers_total", "counter", "STUN answers.", {"": counters.stun_answers}
    )
    yield from _family(
        "api_answers_total", "counter", "Answers through the API.", {"": counters.api_answers}
    )
    kinds = {f'{{kind="{kind}"}}': count for kind, count in sorted(counters.api_tokens.items())}
    yield from _family("api_tokens_total", "counter", "Tokens of those answers.", kinds)


def _labelled(values: dict[str, int]) -> dict[str, int]:
    # Codes are this package's own identifiers, so they need no escaping.
    return {f'{{reason="{code}"}}': count for code, count in sorted(values.items())}


def _family(name: str, kind: str, text: str, values: dict[str, int]) -> Iterable[str]:
    full = f"kwaainet_relay_{name}"
    yield f"# HELP {full} {text}\n# TYPE {full} {kind}\n"
    for labels, value in values.items():
        yield f"{full}{labels} {value}\n"
