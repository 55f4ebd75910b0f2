"""Requests to the API are counted under few names, however they end."""

from __future__ import annotations

import pytest
from starlette.types import Receive, Scope, Send

from relay_server.api.timed import Timed
from relay_server.counters import Counters


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/v1/completions", "/completions"),
        ("/v1/chat/completions", "/chat/completions"),
        ("/v1/models", "/models"),
        ("/v1/models/anything/at/all", "/models/NAME"),
        ("/v1/whatever", "other"),
    ],
)
async def test_endpoints_are_few(path: str, endpoint: str) -> None:
    assert await count(path, 404) == {(endpoint, "404"): 1.0}


async def test_who_leaves_and_what_breaks_are_counted_too() -> None:
    assert await count("/v1/models", None) == {("/models", "499"): 1.0}
    with pytest.raises(ZeroDivisionError):
        await count("/v1/models", 0)


async def count(path: str, status: int | None) -> dict[tuple[str, str], float]:
    """What is counted when the application answers so: None not at all, 0 by an error."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if status == 0:
            raise ZeroDivisionError
        if status is not None:
            await send({"type": "http.response.start", "status": status, "headers": []})

    async def nothing(*_: object) -> None:
        return None

    counters = Counters()
    try:
        await Timed(app, counters)({"type": "http", "path": path}, nothing, nothing)  # type: ignore[arg-type]
    finally:
        (family,) = counters.api_requests.collect()
        found = {
            (s.labels["endpoint"], s.labels["status"]): s.value
            for s in family.samples
            if s.name.endswith("_total")
        }
        if status == 0:
            assert found == {("/models", "500"): 1.0}
    return found
