"""The node's outside: JSON calls in, JSON replies and notices out (loader/protocol.ts).

A host hands this module its ports and a way to post; the page, a command line or a test sits on
the other side. Calls: `generate`, `cancel`, `status`, `limits`, `stop`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from pyodide_node.chat.chat import ChatMessage
from pyodide_node.chunks import ChunkSender
from pyodide_node.config import NodeConfig, ResourceLimits
from pyodide_node.core import KwaaiNetCore
from pyodide_node.errors import Cancelled, ConfigError, KwaaiNetError, LocalError
from pyodide_node.hosts.base import Host
from pyodide_node.inference.asker import Answer
from pyodide_node.inference.generation import InferenceRequest
from pyodide_node.inference.sampling import Sampling
from pyodide_node.wire.malformed import MALFORMED

__all__ = ["Control", "config_of"]

_STATUS_EVERY = 1.0
_CALL_BYTES = 4_000_000

Post = Callable[[str], None]
_T = TypeVar("_T")


class _TextPart(Struct, frozen=True, tag_field="type", tag="text"):
    text: str


class _ChatMessage(Struct, frozen=True):
    """OpenAI's, of text only."""

    role: Annotated[str, Meta(min_length=1, max_length=32)]
    content: str | list[_TextPart]

    def plain(self) -> ChatMessage:
        content = self.content
        if not isinstance(content, str):
            content = "".join(part.text for part in content)
        return ChatMessage(self.role, content)


class _Generate(Struct, frozen=True):
    """Parameters of `generate`; either a prompt or messages."""

    prompt: str | None = None
    messages: Annotated[list[_ChatMessage], Meta(max_length=1000)] | None = None
    model: str | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=131_072)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=10)] | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    resume_ids: Annotated[list[int], Meta(max_length=131_072)] | None = None


class _Limits(Struct, frozen=True):
    cpu: Annotated[int, Meta(ge=1, le=100)] | None = None
    memory: Annotated[int, Meta(ge=64)] | None = None
    storage: Annotated[int, Meta(ge=0)] | None = None


class _Cancel(Struct, frozen=True):
    call: int


class _Call(Struct, frozen=True):
    id: int
    method: str
    params: msgspec.Raw = msgspec.Raw(b"null")


def config_of(config_json: str) -> NodeConfig:
    """From a TagConfig (protocol.ts). Raises ConfigError."""
    tag = json.loads(config_json)
    return NodeConfig.from_attributes(tag["attributes"], tag["cdn"])


class Control:
    """One node and its callers."""

    def __init__(self, host: Host, config: NodeConfig, post: Post) -> None:
        self._post_text = post
        self._core = KwaaiNetCore(host, config, progress=self._progress, changed=self._changed_soon)
        self._host = host
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._stopped = asyncio.Event()
        self._ready = asyncio.Event()
        self._failure: KwaaiNetError | None = None
        self._starting: asyncio.Task[None] | None = None

    @property
    def core(self) -> KwaaiNetCore:
        return self._core

    async def run(self) -> None:
        """Start the node and tell its state until it is stopped."""
        telling = asyncio.create_task(self._tell_status(), name="status")
        try:
            try:
                self._starting = asyncio.create_task(self._core.initialize(), name="starting")
                await self._starting
            except KwaaiNetError as error:
                self._failure = error
                self._notice("failed", _error(error))
            except asyncio.CancelledError:
                if not self._stopped.is_set():
                    raise
            finally:
                self._ready.set()
            await self._stopped.wait()
        finally:
            telling.cancel()
            await asyncio.gather(telling, *self._calls.values(), return_exceptions=True)
            await self._core.close()

    def deliver(self, call_json: str) -> None:
        """Take a Call; its replies are posted. A malformed one is answered, never raised."""
        number = -1
        try:
            if len(call_json) > _CALL_BYTES:
                raise ConfigError("a call is too long")
            number = json.loads(call_json).get("id", -1)
            call = msgspec.json.decode(call_json, type=_Call)
            if call.id in self._calls:
                raise ConfigError(f"the id {call.id} is in use")
        except (ValueError, AttributeError, RecursionError, KwaaiNetError) as error:
            problem = ConfigError(f"a malformed call: {error}")
            self._reply(number if isinstance(number, int) else -1, "error", _error(problem))
            return
        task = asyncio.ensure_future(self._answer(call))
        self._calls[call.id] = task
        task.add_done_callback(lambda _: self._ended(call.id, task))

    def _ended(self, number: int, task: asyncio.Task[None]) -> None:
        del self._calls[number]
        if task.cancelled():  # before it began, so that it could not say so itself
            self._reply(number, "error", _error(Cancelled("this answer was stopped")))

    def stop(self) -> None:
        """End `run`."""
        if self._starting is not None:
            self._starting.cancel()
        for task in self._calls.values():
            task.cancel()
        self._stopped.set()

    # --- calls ----------------------------------------------------------------------------

    async def _answer(self, call: _Call) -> None:
        try:
            value = await self._perform(call)
        except KwaaiNetError as error:
            self._reply(call.id, "error", _error(error))
        except MALFORMED as error:
            problem = ConfigError(f"{call.method} does not take these parameters: {error}")
            self._reply(call.id, "error", _error(problem))
        except asyncio.CancelledError:
            self._reply(call.id, "error", _error(Cancelled("this answer was stopped")))
        except Exception as error:  # a bug: whoever asked must not wait for ever
            self._reply(call.id, "error", _error(LocalError(f"{type(error).__name__}: {error}")))
            raise
        else:
            self._reply(call.id, "done", value)

    async def _perform(self, call: _Call) -> Any:
        match call.method:
            case "generate":
                return await self._generate(call.id, _params(call, _Generate))
            case "cancel":
                task = self._calls.get(_params(call, _Cancel).call)
                return task is not None and task.cancel()
            case "status":
                return await self._core.status()
            case "limits":
                return self._set_limits(_params(call, _Limits))
            case "stop":
                asyncio.get_running_loop().call_soon(self.stop)
                return True
            case _:
                raise ConfigError(f"no such method: {call.method[:64]}", setting="method")

    async def _generate(self, number: int, params: _Generate) -> dict[str, Any]:
        await self._ready.wait()
        if self._failure is not None:
            raise self._failure
        answers: list[Answer] = []

        def told(answer: Answer) -> None:
            answers[:] = [answer]
            self._notice("route", {"call": number, "route": answer.route})

        request = self._request(params)
        chunks = ChunkSender(self._host.clock, lambda value: self._reply(number, "chunk", value))
        try:
            async for chunk in self._core.run_inference(request, told):
                chunks.add(chunk)
        finally:
            chunks.flush()
        answer = answers[0]
        return {
            "model": answer.model,
            "text": answer.text,
            "ids": answer.ids,
            "prompt_ids": answer.prompt_ids,
            "finish_reason": answer.finish_reason,
            "usage": {
                "prompt_tokens": len(answer.prompt_ids),
                "completion_tokens": len(answer.ids),
                "total_tokens": len(answer.prompt_ids) + len(answer.ids),
            },
            "route": answer.route,
            "reroutes": answer.reroutes,
            "ttft_ms": round(answer.ttft_ms, 1),
            "decode_tok_s": round(answer.decode_tok_s, 2),
        }

    def _request(self, params: _Generate) -> InferenceRequest:
        if not (params.prompt or params.messages):
            raise ConfigError("give a prompt, or messages", setting="prompt")
        seed = params.seed
        if seed is None:
            seed = int.from_bytes(self._host.keys.random(6), "big")
        model = self._core.model
        stop = [params.stop] if isinstance(params.stop, str) else params.stop or []
        return InferenceRequest(
            prompt=params.prompt or "",
            messages=tuple(message.plain() for message in params.messages or ()),
            model=params.model or "",
            max_tokens=params.max_tokens or 128,
            sampling=Sampling.of(
                model.manifest.generation if model else None,
                temperature=params.temperature,
                top_k=params.top_k,
                top_p=params.top_p,
                repetition_penalty=params.repetition_penalty,
                seed=seed,
            ),
            stop=tuple(stop),
            resume_ids=tuple(params.resume_ids or ()),
        )

    def _set_limits(self, params: _Limits) -> dict[str, int]:
        now = self._core.budget.limits
        limits = ResourceLimits(
            cpu=params.cpu or now.cpu,
            memory=params.memory or now.memory,
            storage=now.storage if params.storage is None else params.storage,
        )
        self._core.set_limits(limits)
        return {"cpu": limits.cpu, "memory": limits.memory, "storage": limits.storage}

    # --- out ------------------------------------------------------------------------------

    def _progress(self, stage: str, text: str, share: float | None) -> None:
        self._notice("progress", {"stage": stage, "text": text, "share": share})

    def _changed_soon(self) -> None:
        self._changed.set()

    async def _tell_status(self) -> None:
        while True:
            self._notice("status", await self._core.status())
            self._changed.clear()
            try:
                async with asyncio.timeout(_STATUS_EVERY):
                    await self._changed.wait()
                await asyncio.sleep(0.05)  # several changes at once are one
            except TimeoutError:
                continue

    def _reply(self, number: int, event: str, value: Any) -> None:
        what = "error" if event == "error" else "value"
        self._post({"type": "reply", "id": number, "event": event, what: value})

    def _notice(self, event: str, value: Any) -> None:
        self._post({"type": "notice", "event": event, "value": value})

    def _post(self, message: dict[str, Any]) -> None:
        self._post_text(msgspec.json.encode(message).decode())


def _params(call: _Call, kind: type[_T]) -> _T:
    return msgspec.json.decode(call.params, type=kind)


def _error(error: KwaaiNetError) -> dict[str, Any]:
    data = {
        key: value.hex() if isinstance(value, bytes) else value for key, value in error.data.items()
    }
    return {"code": error.code, "message": str(error), "data": data}
