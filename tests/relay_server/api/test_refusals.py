"""What is refused, and that OpenAI's clients can read why. The mesh is empty here."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio

from pyodide_node.errors import ConfigError
from relay_server import Relay, RelaySettings
from relay_server.api.limits import BODY_BYTES
from tests.relay_server.api.world import MODEL, PROMPT, Place, place
from tests.relay_server.http import get

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASKED = {"model": MODEL, "prompt": PROMPT}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    async with place(tmp_path_factory.mktemp("relay")) as started:
        yield started


@pytest.mark.parametrize("path", ["/models", f"/models/{MODEL}", "/completions"])
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("", "missing_api_key"),
        ("Bearer ", "missing_api_key"),
        ("Basic a2V5", "missing_api_key"),
        ("Bearer sk-123", "invalid_api_key"),
        ("Bearer kwaai-0123456789ab-" + "A" * 43, "invalid_api_key"),
    ],
)
async def test_without_a_key_there_is_nothing(here: Place, path: str, sent: str, code: str) -> None:
    method = "POST" if path == "/completions" else "GET"
    answer = await here.ask(path, method=method, Authorization=sent)
    assert (answer.status, answer.error["code"]) == (401, code)
    assert answer.error["type"] == "invalid_request_error"
    assert answer.headers["www-authenticate"] == "bearer"


async def test_a_revoked_key_is_refused_at_once(here: Place) -> None:
    from relay_server.api.keys import ApiKeys
    from relay_server.state import State

    key = here.add_key("gone soon")
    assert (await here.ask("/models", method="GET", key=key)).status == 200
    with State(here.folder / "state") as state:
        ApiKeys(state).revoke("gone soon")
    async with here.client(key) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


async def test_the_models_are_listed_with_what_the_relay_sees(here: Place) -> None:
    async with here.client() as client:
        (model,) = (await client.models.list()).data
        assert (model.id, model.object, model.owned_by) == (MODEL, "model", "kwaainet")
        assert model == await client.models.retrieve(MODEL)
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("gpt-17")
    extra = model.kwaainet  # type: ignore[attr-defined]
    assert extra["served"] is False
    assert "reads prompts" in extra["privacy"]
    answer = await here.ask("/models", method="GET")
    assert "reads prompts" in answer.headers["x-kwaainet-privacy"]


async def test_a_model_that_nobody_serves_is_unavailable_for_now(here: Place) -> None:
    async with here.client() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.completions.create(model=MODEL, prompt=PROMPT)
    assert caught.value.status_code == 503
    assert int(caught.value.response.headers["retry-after"]) > 0
    assert caught.value.code == "model_not_served"
    assert here.usage().requests == 0


async def test_a_model_that_does_not_exist_is_said_so(here: Place) -> None:
    answer = await here.ask(body={**ASKED, "model": "gpt-17"})
    assert (answer.status, answer.error["code"]) == (404, "model_not_found")
    assert MODEL in answer.error["message"]
    assert answer.error["param"] == "model"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"nonsense",
        b'{"model": "' + MODEL.encode() + b'", "prompt": "' + b"\xff" + b'"}',
        b"[" * 100_000,
    ],
)
async def test_a_body_that_is_not_json(here: Place, body: bytes) -> None:
    for path in ("/completions", "/chat/completions"):
        answer = await here.ask(path, body)
        assert answer.status == 400
        assert answer.error["type"] == "invalid_request_error"


WRONG: list[tuple[str, dict[str, Any], str | None]] = [
    ("/completions", {"model": MODEL}, None),
    ("/completions", {"prompt": PROMPT}, None),
    ("/completions", {**ASKED, "prompt": ""}, "prompt"),
    ("/completions", {**ASKED, "prompt": ["a", "b"]}, "prompt"),
    ("/completions", {**ASKED, "prompt": [1, 2]}, "prompt"),
    ("/completions", {**ASKED, "prompt": 7}, "prompt"),
    ("/completions", {**ASKED, "max_tokens": 0}, "max_tokens"),
    ("/completions", {**ASKED, "max_tokens": 4097}, "max_tokens"),
    ("/completions", {**ASKED, "max_tokens": "many"}, "max_tokens"),
    ("/completions", {**ASKED, "temperature": -1}, "temperature"),
    ("/completions", {**ASKED, "top_p": 0}, "top_p"),
    ("/completions", {**ASKED, "n": 2}, "n"),
    ("/completions", {**ASKED, "best_of": 3}, "best_of"),
    ("/completions", {**ASKED, "echo": True}, "echo"),
    ("/completions", {**ASKED, "logprobs": 0}, "logprobs"),
    ("/completions", {**ASKED, "stop": ["x"] * 17}, "stop"),
    ("/completions", {**ASKED, "stream_options": {"include_usage": True}}, "stream_options"),
    ("/completions", {**ASKED, "messages": []}, "messages"),
    ("/completions", {**ASKED, "wings": 2}, "wings"),
    ("/chat/completions", {"model": MODEL}, None),
    ("/chat/completions", {**CHAT, "messages": []}, "messages"),
    ("/chat/completions", {**CHAT, "messages": [{"role": "tool", "content": "x"}]}, "messages"),
    ("/chat/completions", {**CHAT, "messages": [{"role": "user"}]}, "messages"),
    ("/chat/completions", {**CHAT, "n": 2}, "n"),
    ("/chat/completions", {**CHAT, "logprobs": True}, "logprobs"),
    ("/chat/completions", {**CHAT, "presence_penalty": 0.5}, "presence_penalty"),
    ("/chat/completions", {**CHAT, "tools": [{"type": "function"}]}, "tools"),
    ("/chat/completions", {**CHAT, "response_format": {"type": "json_object"}}, "response_format"),
    ("/chat/completions", {**CHAT, "max_completion_tokens": 5000}, "max_tokens"),
]


@pytest.mark.parametrize(("path", "body", "param"), WRONG)
async def test_a_wrong_parameter_is_named(
    here: Place, path: str, body: dict[str, Any], param: str | None
) -> None:
    answer = await here.ask(path, body)
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"
    assert answer.error["param"] == param


@pytest.mark.parametrize(
    "body",
    [
        {**ASKED, "n": 1, "best_of": 1, "echo": False, "suffix": None, "frequency_penalty": 0.0},
        {**ASKED, "prompt": [PROMPT], "user": "ada", "presence_penalty": 0, "logit_bias": {}},
        {**ASKED, "stream": False, "stream_options": None, "stop": None, "seed": -1},
    ],
)
async def test_parameters_that_change_nothing_are_taken(here: Place, body: dict[str, Any]) -> None:
    assert (await here.ask(body=body)).error["code"] == "model_not_served"


async def test_chat_takes_what_clients_send(here: Place) -> None:
    messages = [
        {"role": "developer", "content": "be kind"},
        {"role": "user", "content": [{"type": "text", "text": "hello"}], "name": "ada"},
        {"role": "assistant", "content": "yes?", "refusal": None, "annotations": []},
        {"role": "user", "content": "well"},
    ]
    body = {**CHAT, "messages": messages, "response_format": {"type": "text"}, "tools": []}
    answer = await here.ask("/chat/completions", body)
    assert answer.error["code"] == "model_not_served"


async def test_a_giant_body_is_refused_before_it_is_read(here: Place) -> None:
    answer = await here.ask(body=b"", Content_Length=str(BODY_BYTES + 1))
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")
    answer = await here.ask(body=b"", Content_Length="9" * 18)
    assert answer.status == 413


async def test_a_giant_body_without_a_length_is_cut(here: Place) -> None:
    piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    many = piece * (BODY_BYTES // 0x10000 + 1)
    answer = await here.ask(body=many, Content_Length="", Transfer_Encoding="chunked")
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")


async def test_a_body_that_never_comes_is_not_waited_for(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay_server.api.endpoints.BODY_DEADLINE", 0.01)
    answer = await here.ask(body=b"", Content_Length="100")
    assert (answer.status, answer.error["code"]) == (408, "timeout")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/completions", 405),
        ("POST", "/models", 405),
        ("POST", "/embeddings", 404),
        ("GET", "/", 404),
    ],
)
async def test_other_doors_are_errors_in_the_same_form(
    here: Place, method: str, path: str, status: int
) -> None:
    answer = await here.ask(path, b"{}", method=method)
    assert answer.status == status
    assert answer.error["type"] == "invalid_request_error"


async def test_a_mistake_of_ours_is_an_error_too(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay_server.api.served.ServedModels.all", None)
    answer = await here.ask("/models", method="GET")
    assert (answer.status, answer.error["code"]) == (500, "internal_error")
    assert "NoneType" not in answer.body.decode()


async def test_keys_and_prompts_are_not_logged(
    here: Place, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("uvicorn.error").debug("heard")
        await here.ask(body={**ASKED, "prompt": "the secret plan"})
        await here.ask("/models", method="GET", key=here.key + "x")
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert "heard" in told
    assert here.key[-43:] not in told
    assert "secret plan" not in told


async def test_it_is_off_until_it_is_switched_on() -> None:
    async with Relay(RelaySettings(port=0, stun=False)) as relay:
        answer = await get(relay.url, "/v1/models")
        assert answer.status == 404


async def test_only_models_that_the_operator_names_are_offered(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"'gpt-17'.*{MODEL}"):
        async with place(tmp_path, api_models=("gpt-17",)):
            pass
    with pytest.raises(ConfigError, match="--models"):
        async with place(tmp_path, models=None):
            pass
