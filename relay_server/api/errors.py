"""What went wrong, in OpenAI's words: their clients decide by status, type and code."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from pyodide_node.errors import (
    ConfigError,
    KwaaiNetError,
    NoRoute,
    NotGranted,
    StageFailed,
    StoreError,
    UnknownModel,
    Unreachable,
)
from relay_server.api.keys import OverQuota
from relay_server.api.limits import LABEL

__all__ = ["ApiError", "api_error", "error_handlers", "no_such_model", "not_served"]

_RETRY_SOON = 5
"""Seconds: nodes take up what is missing, or come back, within a few."""


class ApiError(Exception):
    """One refusal or failure; `body` is what the client gets."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def no_such_model(name: str, known: list[str]) -> ApiError:
    return ApiError(
        404,
        f"The model {name[:200]!r} does not exist here; it can be one of: "
        + (", ".join(known) or "none, for this relay offers none"),
        code="model_not_found",
        param="model",
    )


def not_served(name: str) -> ApiError:
    return ApiError(
        503,
        f"Nobody serves all blocks of {name} just now; try again in a moment, or run a node with"
        f" it: kwaainet start --model {name}",
        kind="server_error",
        code="model_not_served",
        param="model",
        retry_after=_RETRY_SOON,
    )


def api_error(error: Exception) -> ApiError:
    """Any error as the one that the client is told."""
    match error:
        case ApiError():
            return error
        case OverQuota():
            kind = "tokens" if error.code == "insufficient_quota" else "requests"
            return ApiError(
                429, str(error), kind=kind, code=error.code, retry_after=error.retry_after
            )
        case ConfigError():
            return _of_the_request(error)
        case UnknownModel():
            return no_such_model(str(error.data.get("model", "")), error.data.get("known", []))
        case NotGranted():
            return ApiError(403, str(error), kind="permission_error", code="model_not_granted")
        case NoRoute() | StageFailed() | Unreachable():
            return ApiError(
                503,
                f"The mesh does not get this answered just now: {error}. Try again in a moment.",
                kind="server_error",
                code="mesh_unavailable",
                retry_after=_RETRY_SOON,
            )
        case StoreError():  # it names files and hosts of the operator's
            return ApiError(
                503,
                "The relay cannot look keys up just now; try again in a moment.",
                kind="server_error",
                code="state_unavailable",
                retry_after=_RETRY_SOON,
            )
        case KwaaiNetError():
            return ApiError(500, str(error), kind="server_error", code=error.code)
        case HTTPException():
            return ApiError(error.status_code, f"{error.detail}: docs/API.md says what there is")
        case _:
            message = "The relay made a mistake; its log says more."
            return ApiError(500, message, kind="server_error", code="internal_error")


def _of_the_request(error: ConfigError) -> ApiError:
    too_long = "context" in error.data
    return ApiError(
        400,
        str(error),
        code="context_length_exceeded" if too_long else "invalid_value",
        param=error.data.get("setting"),
    )


async def _respond(request: Request, error: Exception) -> Response:
    told = api_error(error)
    headers = {"X-KwaaiNet-Privacy": LABEL, "Cache-Control": "no-store"}
    if told.retry_after is not None:
        headers["Retry-After"] = str(told.retry_after)
    if isinstance(error, HTTPException):
        headers |= error.headers or {}
    if told.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = msgspec.json.encode(told.body)
    return Response(body, told.status, headers=headers, media_type="application/json")


_HANDLED = (ApiError, OverQuota, KwaaiNetError, HTTPException, Exception)
error_handlers: dict[Any, Any] = dict.fromkeys(_HANDLED, _respond)
"""For Starlette, which takes the nearest class."""
