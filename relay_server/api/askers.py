"""The relay's own nodes that ask: tokenizer, embedding, head and sampling, and no blocks.

One node a model, started when the model is first asked for. They enter the mesh as any node does,
through a door of the relay's own on loopback, so that TLS and the names it is known by outside
are no matter.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyodide_node.config import NodeConfig, ResourceLimits, models_url, relay_url
from pyodide_node.core import KwaaiNetCore
from pyodide_node.errors import ConfigError
from pyodide_node.hosts.native import native_host
from pyodide_node.inference.generation import InferenceRequest
from pyodide_node.model.manifest import GenerationDefaults
from relay_server.api.loop_thread import LoopThread
from relay_server.api.running import Running
from relay_server.settings import RelaySettings

__all__ = ["Askers", "MakeRequest"]

_LONGEST_TOKEN: Final = 32
"""Characters that a token stands for on average at the very most: text has about 4 a token, and
whitespace of tables and code is the longest."""

MakeRequest = Callable[[GenerationDefaults | None], InferenceRequest]
"""Makes the request when the model's own sampling defaults are known."""


@dataclass(frozen=True)
class _Asker:
    core: KwaaiNetCore
    stack: AsyncExitStack


@dataclass
class _Place:
    """One model's node, from its start on; counted busy as soon as somebody waits for it."""

    starting: asyncio.Task[_Asker]
    busy: int = 0
    used: float = 0.0

    @property
    def failed(self) -> bool:
        return self.starting.done() and self.starting.exception() is not None


class Askers:
    """`async with Askers(...) as askers`; all of the nodes' work is on one other thread.

    `state` gets a directory for each model's node; `door` is the relay as http://host:port.
    """

    def __init__(self, settings: RelaySettings, state: Path, door: str) -> None:
        self._settings = settings
        self._state = state
        self._door = door
        self._thread = LoopThread("kwaainet api")
        self._places: dict[str, _Place] = {}
        """By model id; touched on the thread only."""

    async def __aenter__(self) -> Askers:
        await self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.wrap_future(self._thread.submit(self._close()))
        await self._thread.stop()

    def ask(self, model: str, make: MakeRequest) -> Running:
        """Begin an answer of the model with this id."""
        running = Running()
        running.follow(self._thread.submit(self._run(running, model, make)))
        return running

    # --- on the thread --------------------------------------------------------------------

    async def _run(self, running: Running, model: str, make: MakeRequest) -> None:
        place = await self._place(model)
        place.busy += 1
        try:
            # Shielded: who asks first may leave, and others wait for the same node.
            core = (await asyncio.shield(place.starting)).core
            assert core.model is not None
            manifest = core.model.manifest
            request = make(manifest.generation)
            _check_length(request, manifest.context_length)
            async for chunk in core.run_inference(request, running.told):
                running.add(chunk)
        finally:
            place.busy -= 1
            place.used = time.monotonic()

    async def _place(self, model: str) -> _Place:
        """The model's node, begun to be started if there is none or it did not start."""
        if model not in self._places:
            await self._make_room()
        if model not in self._places or self._places[model].failed:
            self._places[model] = _Place(asyncio.create_task(self._start(model)))
        return self._places[model]

    async def _start(self, model: str) -> _Asker:
        async with AsyncExitStack() as stack:
            host = await native_host(self._state / model[:16])
            stack.callback(host.close)
            config = NodeConfig(
                relays=(relay_url(self._door),),
                sources=(models_url(self._door),),
                model=model,
                services=frozenset(),
                # What is stored would be a copy of the relay's own files on the same disk.
                limits=ResourceLimits(cpu=100, memory=self._settings.api_memory, storage=0),
                # All that comes by WebRTC passes this machine anyway; the relay is on it.
                path="relay",
                max_blocks=0,
            )
            core = KwaaiNetCore(host, config)
            stack.push_async_callback(core.close)
            await core.initialize()
            return _Asker(core, stack.pop_all())

    async def _make_room(self) -> None:
        """Close the nodes longest unused while there are too many; busy ones stay."""
        while len(self._places) >= self._settings.api_max_loaded:
            idle = [
                model
                for model, place in self._places.items()
                if not place.busy and place.starting.done()
            ]
            if not idle:
                return
            await self._end(self._places.pop(min(idle, key=lambda one: self._places[one].used)))

    async def _close(self) -> None:
        while self._places:
            _, place = self._places.popitem()
            await self._end(place)

    async def _end(self, place: _Place) -> None:
        place.starting.cancel()
        (ended,) = await asyncio.gather(place.starting, return_exceptions=True)
        if isinstance(ended, _Asker):
            await ended.stack.aclose()


def _check_length(request: InferenceRequest, context: int) -> None:
    """Raises ConfigError. Encoding takes seconds for a megabyte, and others' answers wait."""
    length = len(request.prompt) + sum(len(message.content) for message in request.messages)
    if length > context * _LONGEST_TOKEN:
        raise ConfigError(
            f"the prompt has {length} characters, more than the model's {context} tokens can"
            " stand for; shorten it",
            setting="messages" if request.messages else "prompt",
            context=context,
        )
