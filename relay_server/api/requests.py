"""What clients of OpenAI's API send, and what of it a mesh can do.

A parameter that would change the answer and is not there yet is refused by name; none is left out
silently. Those that only OpenAI's own books need are taken and not used.
"""

from __future__ import annotations

import re
import secrets
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from pyodide_node.chat.chat import ChatMessage
from pyodide_node.inference.generation import InferenceRequest
from pyodide_node.inference.sampling import Sampling
from pyodide_node.model.manifest import GenerationDefaults
from pyodide_node.wire.malformed import MALFORMED
from relay_server.api.errors import ApiError

__all__ = ["ChatRequest", "CompletionRequest", "decode_request"]

_UNDERSTOOD: Final[dict[str, tuple[tuple[Any, ...], str]]] = {
    "n": ((1,), "ask once for each answer, with its own seed"),
    "best_of": ((1,), "ask once for each answer, with its own seed"),
    "echo": ((False,), "put the prompt before the text yourself"),
    "suffix": (("",), "models here continue text, and do not fill gaps"),
    "logprobs": ((False,), "probabilities of tokens stay with the asker so far"),
    "top_logprobs": ((0,), "probabilities of tokens stay with the asker so far"),
    "logit_bias": (({},), "leave it out"),
    "frequency_penalty": ((0, 0.0), "use repetition_penalty"),
    "presence_penalty": ((0, 0.0), "use repetition_penalty"),
    "tools": (([],), "describe them in a message"),
    "tool_choice": (("none", "auto"), "describe them in a message"),
    "response_format": (({"type": "text"},), "describe the form in a message"),
    "modalities": ((["text"],), "models here write text only"),
}
"""Parameters with the values that they may have here, and what to do instead of another."""

_FIELD = re.compile(r"at `\$\.?([^`\[.]*)")
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")


class _StreamOptions(Struct, frozen=True, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _Common(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model: Annotated[str, Meta(min_length=1, max_length=200)]
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=10)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=1 << 22)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    seed: int | None = None
    stop: str | Annotated[list[str], Meta(max_length=16)] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None

    n: Any = None
    logprobs: Any = None
    logit_bias: Any = None
    frequency_penalty: Any = None
    presence_penalty: Any = None

    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None

    default_tokens: ClassVar[int]

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def asked_tokens(self) -> int:
        """Tokens at most; 0 where the client leaves it to us."""
        return self.max_tokens or 0

    def tokens(self, most: int) -> int:
        """Tokens that the answer may have. Raises ApiError for more than `most`."""
        if self.asked_tokens > most:
            raise ApiError(
                400,
                f"max_tokens is {self.asked_tokens}, and this relay gives at most {most} an answer",
                code="invalid_value",
                param="max_tokens",
            )
        return self.asked_tokens or min(self.default_tokens, most)

    def sampling(self, defaults: GenerationDefaults | None) -> Sampling:
        """As a page's: what was asked for, else the model's own defaults, else temperature 0.7."""
        return Sampling.of(
            defaults,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            repetition_penalty=self.repetition_penalty,
            seed=secrets.randbits(48) if self.seed is None else self.seed,
        )

    def _inference(
        self,
        defaults: GenerationDefaults | None,
        most: int,
        *,
        prompt: str = "",
        messages: tuple[ChatMessage, ...] = (),
    ) -> InferenceRequest:
        return InferenceRequest(
            prompt=prompt,
            messages=messages,
            max_tokens=self.tokens(most),
            sampling=self.sampling(defaults),
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
        )

    def check(self) -> None:
        """Raises ApiError for what nobody here can do."""
        if self.stream_options is not None and not self.stream:
            raise _unsupported("stream_options", "it goes with stream: true only")
        for name, (values, instead) in _UNDERSTOOD.items():
            value = getattr(self, name, None)
            if value is not None and not any(_same(value, one) for one in values):
                raise _unsupported(name, instead)


class CompletionRequest(_Common, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`/v1/completions`."""

    prompt: str | list[Any]
    best_of: Any = None
    echo: Any = None
    suffix: Any = None

    chat: ClassVar = False
    default_tokens: ClassVar = 16
    """OpenAI's."""

    @property
    def text(self) -> str:
        """Raises ApiError for several prompts, and for one in ids."""
        prompt = self.prompt
        if isinstance(prompt, list) and len(prompt) == 1:
            prompt = prompt[0]
        if not isinstance(prompt, str):
            raise _unsupported("prompt", "send one prompt a request, as a string")
        return prompt

    def check(self) -> None:
        super().check()
        if not self.text:
            raise ApiError(400, "The prompt is empty.", code="invalid_value", param="prompt")

    def inference(self, defaults: GenerationDefaults | None, most: int) -> InferenceRequest:
        """Raises ApiError, ConfigError."""
        return self._inference(defaults, most, prompt=self.text)


class _TextPart(Struct, frozen=True, tag_field="type", tag="text", forbid_unknown_fields=True):
    text: str


class _Message(Struct, frozen=True, forbid_unknown_fields=True):
    """As sent, and as this API's own answers are sent back to it in the next turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_TextPart]
    name: str | None = None
    refusal: None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None
    tool_calls: None = None

    def plain(self) -> ChatMessage:
        content = self.content
        if not isinstance(content, str):
            content = "".join(part.text for part in content)
        # OpenAI renamed the role; chat templates know the old name.
        return ChatMessage("system" if self.role == "developer" else self.role, content)


class ChatRequest(_Common, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`/v1/chat/completions`."""

    messages: Annotated[list[_Message], Meta(min_length=1, max_length=1000)]
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    top_logprobs: Any = None
    tools: Any = None
    tool_choice: Any = None
    parallel_tool_calls: Any = None
    response_format: Any = None
    modalities: Any = None

    chat: ClassVar = True
    default_tokens: ClassVar = 1024
    """OpenAI's is the model's context, but nodes would have to keep room for all of it."""

    @property
    def asked_tokens(self) -> int:
        return self.max_completion_tokens or self.max_tokens or 0

    def inference(self, defaults: GenerationDefaults | None, most: int) -> InferenceRequest:
        """Raises ApiError, ConfigError."""
        messages = tuple(message.plain() for message in self.messages)
        return self._inference(defaults, most, messages=messages)


_R = TypeVar("_R", bound=_Common)


def decode_request(body: bytes, kind: type[_R]) -> _R:
    """Raises ApiError, saying which parameter is wrong."""
    try:
        request = msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except MALFORMED:
        raise ApiError(400, "The body is not JSON in UTF-8.", code="invalid_json") from None
    request.check()
    return request


def _invalid(message: str) -> ApiError:
    unknown, field = _UNKNOWN.search(message), _FIELD.search(message)
    if unknown:
        param: str | None = unknown[1]
        text = f"Unrecognized request argument supplied: {param}"
    else:
        param = field[1] if field else None
        text = f"Invalid request: {message}"
    code = "unknown_parameter" if unknown else "invalid_value"
    return ApiError(400, text, code=code, param=param or None)


def _same(value: Any, other: Any) -> bool:
    """Equal as JSON has it, where false is not 0."""
    return type(value) is type(other) and bool(value == other)


def _unsupported(name: str, instead: str) -> ApiError:
    return ApiError(
        400,
        f"This mesh does not do that with {name}; {instead}.",
        code="unsupported_parameter",
        param=name,
    )
