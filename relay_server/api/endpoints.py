"""`/v1`: OpenAI's API, answered by the mesh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Final

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from pyodide_node.errors import KwaaiNetError
from relay_server.api.askers import Askers
from relay_server.api.errors import ApiError, api_error, error_handlers
from relay_server.api.keys import ApiKey, ApiKeys, Lease
from relay_server.api.limits import BODY_BYTES, BODY_DEADLINE, KEEP_ALIVE, LABEL
from relay_server.api.replies import Reply, event
from relay_server.api.requests import ChatRequest, CompletionRequest, decode_request
from relay_server.api.running import Running, Silence
from relay_server.api.served import ServedModels
from relay_server.api.slots import Slots
from relay_server.api.streaming import EventStream, while_connected
from relay_server.api.timed import Timed
from relay_server.counters import Counters
from relay_server.logs import LOG
from relay_server.settings import RelaySettings

__all__ = ["Api"]

_HEADERS: Final = {"X-KwaaiNet-Privacy": LABEL}
_COMMENT: Final = b": the mesh is at it\n\n"


class Api:
    """Routes under `/v1`; `close` waits until every answer's usage is written down."""

    def __init__(
        self,
        settings: RelaySettings,
        keys: ApiKeys,
        models: ServedModels,
        askers: Askers,
        counters: Counters,
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._models = models
        self._askers = askers
        self._counters = counters
        self._slots = Slots(settings.api_max_answers, settings.api_answers_per_key)
        self._settling: set[asyncio.Task[None]] = set()
        self.app = Starlette(
            routes=[
                Route("/models", self._list),
                Route("/models/{name:path}", self._describe),
                Route("/completions", self._complete, methods=["POST"]),
                Route("/chat/completions", self._chat, methods=["POST"]),
            ],
            exception_handlers=error_handlers,
            middleware=[Middleware(Timed, counters=counters)],
        )

    async def close(self) -> None:
        """Return when no answer is under way; the server has ended their connections."""
        await self._slots.idle()
        await asyncio.gather(*self._settling)

    async def _list(self, request: Request) -> Response:
        await self._key(request)
        models = [self._models.describe(model) for model in await self._models.all()]
        return _json({"object": "list", "data": models})

    async def _describe(self, request: Request) -> Response:
        await self._key(request)
        model = await self._models.find(request.path_params["name"])
        return _json(self._models.describe(model))

    async def _complete(self, request: Request) -> Response:
        return await self._answer(request, CompletionRequest)

    async def _chat(self, request: Request) -> Response:
        return await self._answer(request, ChatRequest)

    async def _answer(
        self, request: Request, kind: type[CompletionRequest] | type[ChatRequest]
    ) -> Response:
        key = await self._key(request)
        most = self._settings.api_max_tokens
        async with AsyncExitStack() as stack:
            # Before the body is read: bodies take memory too.
            stack.enter_context(self._slots.taken(key.id))
            asked = decode_request(await _body(request), kind)
            tokens = asked.tokens(most)
            model = await self._models.served(asked.model)
            lease = await asyncio.to_thread(self._keys.admit, key, tokens)
            running = self._askers.ask(model.id, lambda defaults: asked.inference(defaults, most))
            stack.callback(self._leave, running, lease, model.name)
            reply = Reply(model.name, model.id, chat=kind is ChatRequest)
            if asked.stream:
                # A route or a refusal: after this the status has been said.
                await while_connected(request.receive, running.begun())
                opening = reply.opening(include_usage=asked.include_usage)
                events = _events(opening, reply, running)
                return EventStream(events, stack.pop_all(), _HEADERS)
            await while_connected(request.receive, _whole(running))
            if running.whole:
                return _json(reply.whole(running.answer))
        return Response(status_code=499)  # nginx's word for it; nobody is there to read it

    def _leave(self, running: Running, lease: Lease, model: str) -> None:
        """Nobody reads on: stop what is under way, and count what was used."""
        running.cancel()
        task = asyncio.create_task(self._settle(running, lease, model), name="settle")
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle(self, running: Running, lease: Lease, model: str) -> None:
        await running.ended()
        prompt, completion = running.tokens
        self._counters.api_answers += 1
        self._counters.api_tokens.update(prompt=prompt, completion=completion)
        LOG.info(
            "api_answer",
            model=model,
            prompt_tokens=prompt,
            completion_tokens=completion,
            whole=running.whole,
        )
        await asyncio.to_thread(self._keys.settle, lease, prompt, completion)

    async def _key(self, request: Request) -> ApiKey:
        """Raises ApiError."""
        scheme, _, sent = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not sent.strip():
            raise ApiError(
                401,
                "You didn't provide an API key: send it as Authorization: Bearer KEY. The"
                " relay's operator makes one with `kwaainet api-key add NAME`.",
                code="missing_api_key",
            )
        key = await asyncio.to_thread(self._keys.find, sent.strip())
        if key is None:
            raise ApiError(
                401,
                "Incorrect API key provided: it is unknown here or revoked.",
                code="invalid_api_key",
            )
        return key


async def _whole(running: Running) -> None:
    await running.begun()
    while await running.next() is not None:
        pass


async def _events(
    opening: list[bytes], reply: Reply, running: Running
) -> AsyncGenerator[bytes, None]:
    for data in opening:
        yield data
    while not running.whole:
        try:
            chunk = await running.next(KEEP_ALIVE)
        except Silence:
            yield _COMMENT
        except Exception as error:
            yield event(api_error(error).body)
            if not isinstance(error, (KwaaiNetError, ApiError)):
                raise  # a mistake of ours, for the log
            return
        else:
            if chunk is not None and chunk.text:
                yield reply.text(chunk.text)
    for data in reply.ending(running.answer):
        yield data


async def _body(request: Request) -> bytes:
    """Raises ApiError for one that is too long or too slow."""
    too_long = ApiError(
        413, f"The body has more than {BODY_BYTES} bytes; shorten it.", code="request_too_large"
    )
    said = request.headers.get("content-length", "0")
    if said.isdecimal() and int(said[:20]) > BODY_BYTES:
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_DEADLINE):
            async for part in request.stream():
                body += part
                if len(body) > BODY_BYTES:
                    raise too_long
    except TimeoutError:
        raise ApiError(408, "The body did not come in time.", code="timeout") from None
    except ClientDisconnect:
        raise ApiError(400, "The body broke off.", code="incomplete") from None
    return bytes(body)


def _json(data: object) -> Response:
    headers = {**_HEADERS, "Cache-Control": "no-store"}
    return Response(msgspec.json.encode(data), media_type="application/json", headers=headers)
