"""Each error of the tree has a status that OpenAI's clients act upon rightly."""

from __future__ import annotations

import pytest

from pyodide_node import errors
from relay_server.api.errors import ApiError, api_error
from relay_server.api.keys import OverQuota

RETRIED = (408, 409, 429)
"""Beside those from 500 on: what OpenAI's clients send again by themselves."""


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.ConfigError("no", setting="stop"), 400, "invalid_value"),
        (errors.ConfigError("long", setting="prompt", context=8), 400, "context_length_exceeded"),
        (errors.NotGranted("ask its owner"), 403, "model_not_granted"),
        (errors.UnknownModel("no", model="x", known=["y"]), 404, "model_not_found"),
        (OverQuota("insufficient_quota", "no", 7), 429, "insufficient_quota"),
        (errors.BudgetExceeded("no room"), 500, "BudgetExceeded"),
        (errors.NoRoute("nobody"), 503, "mesh_unavailable"),
        (errors.StageFailed("it lied"), 503, "mesh_unavailable"),
        (errors.StoreError("/var/lib cannot be read"), 503, "state_unavailable"),
        (errors.Unreachable("no path"), 503, "mesh_unavailable"),
        (ZeroDivisionError("ours"), 500, "internal_error"),
        (ApiError(413, "long", code="request_too_large"), 413, "request_too_large"),
    ],
)
def test_statuses_and_codes(error: Exception, status: int, code: str) -> None:
    told = api_error(error)
    assert (told.status, told.body["error"]["code"]) == (status, code)
    assert told.body["error"]["message"] == str(told)
    by_retrying = status in RETRIED or status >= 500
    assert (told.body["error"]["type"] != "invalid_request_error") == by_retrying or status == 403
    assert (told.retry_after is not None) == (status in (429, 503))


def test_where_the_state_lies_is_the_operators() -> None:
    assert "/var/lib" not in str(api_error(errors.StoreError("/var/lib cannot be read")))
