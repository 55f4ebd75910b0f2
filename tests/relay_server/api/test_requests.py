"""What bodies are taken for: never anything but a request or an error that names its cause."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyodide_node.chat.chat import ChatMessage
from pyodide_node.errors import ConfigError
from pyodide_node.model.manifest import GenerationDefaults
from relay_server.api.errors import ApiError, api_error
from relay_server.api.requests import ChatRequest, CompletionRequest, decode_request

PLAIN = {"model": "m", "prompt": "p"}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(sorted({*CompletionRequest.__struct_fields__, "surprise"}))
chat_names = st.sampled_from(sorted({*ChatRequest.__struct_fields__, "surprise"}))


def plain(**more: Any) -> CompletionRequest:
    return decode_request(json.dumps({**PLAIN, **more}).encode(), CompletionRequest)


def chat(**more: Any) -> ChatRequest:
    return decode_request(json.dumps({**CHAT, **more}).encode(), ChatRequest)


def judged(body: bytes, kind: type[CompletionRequest] | type[ChatRequest]) -> None:
    """It becomes a request, or an error of the client's; anything else is raised."""
    told: Exception | None = None
    try:
        decode_request(body, kind).inference(None, 4096)
    except (ApiError, ConfigError) as error:
        told = error
    if told is not None:
        found = api_error(told)
        assert found.status == 400
        assert json.loads(json.dumps(found.body))["error"]["message"]


@given(st.binary(max_size=200))
def test_any_bytes_are_judged(body: bytes) -> None:
    judged(body, CompletionRequest)
    judged(body, ChatRequest)


@given(st.dictionaries(names, values, max_size=4))
def test_any_values_of_known_parameters_are_judged(more: dict[str, Any]) -> None:
    judged(json.dumps({**PLAIN, **more}).encode(), CompletionRequest)


@given(st.dictionaries(chat_names, values, max_size=4), values)
def test_any_values_in_a_chat_are_judged(more: dict[str, Any], content: Any) -> None:
    body = {**CHAT, "messages": [{"role": "user", "content": content}], **more}
    judged(json.dumps(body).encode(), ChatRequest)


def test_what_is_asked_for_counts_and_then_the_models_own_defaults() -> None:
    defaults = GenerationDefaults(temperature=0.3, top_k=20, repetition_penalty=1.1)
    asked = plain(top_p=0.5, top_k=4, seed=-3).inference(defaults, 4096).sampling
    assert (asked.temperature, asked.top_p, asked.top_k) == (0.3, 0.5, 4)
    assert (asked.repetition_penalty, asked.seed) == (1.1, -3)
    assert plain().inference(None, 4096).sampling.temperature == 0.7


def test_seeds_are_drawn_where_none_is_given() -> None:
    drawn = {plain().inference(None, 4096).sampling.seed for _ in range(3)}
    assert len(drawn) == 3


def test_the_length_has_openais_names_and_our_bounds() -> None:
    assert plain().tokens(4096) == 16
    assert chat().tokens(4096) == 1024
    assert chat().tokens(100) == 100
    assert chat(max_tokens=7).tokens(4096) == 7
    assert chat(max_tokens=7, max_completion_tokens=9).tokens(4096) == 9
    with pytest.raises(ApiError, match="at most 8"):
        chat(max_tokens=9).tokens(8)


def test_stops_are_one_or_several() -> None:
    assert plain().inference(None, 4096).stop == ()
    assert plain(stop="x").inference(None, 4096).stop == ("x",)
    assert plain(stop=["x", "y"]).inference(None, 4096).stop == ("x", "y")
    with pytest.raises(ConfigError) as caught:
        plain(stop="").inference(None, 4096)
    assert caught.value.data["setting"] == "stop"


def test_messages_are_text_by_role() -> None:
    messages = [
        {"role": "developer", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]},
    ]
    request = chat(messages=messages).inference(None, 4096)
    assert request.messages == (ChatMessage("system", "a"), ChatMessage("user", "bc"))


@pytest.mark.parametrize("value", [True, 1.0, "1", [1]])
def test_one_is_not_everything_that_equals_it(value: Any) -> None:
    with pytest.raises(ApiError) as caught:
        plain(n=value)
    assert caught.value.body["error"]["param"] == "n"
