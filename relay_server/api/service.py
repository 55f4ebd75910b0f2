"""The API with all that it stands on: keys, asking nodes, and their door into the mesh."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from types import TracebackType

from starlette.applications import Starlette

from pyodide_node.errors import ConfigError
from pyodide_node.hosts.base import Clock
from relay_server.api.askers import Askers
from relay_server.api.endpoints import Api
from relay_server.api.keys import ApiKeys
from relay_server.api.served import ServedModels
from relay_server.app import make_app
from relay_server.hub import Hub
from relay_server.logs import LOG
from relay_server.models import ModelShelf
from relay_server.server import Server, server_config
from relay_server.settings import RelaySettings
from relay_server.state import State

__all__ = ["ApiService"]


class ApiService:
    """`async with ApiService(settings, hub, clock) as service: service.app`.

    Raises ConfigError, and StoreError when the state cannot be read.
    """

    app: Starlette

    def __init__(self, settings: RelaySettings, hub: Hub, clock: Clock) -> None:
        if settings.state is None or settings.models is None:
            raise ConfigError(
                "the API needs a directory for its keys and one of models to offer; name them"
                " with --state and --models",
                setting="api",
            )
        self._settings = settings
        self._models, self._directory = settings.models, settings.state
        self._hub = hub
        self._clock = clock
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> ApiService:
        shelf = ModelShelf(self._models)
        known = [model.name for model in await asyncio.to_thread(shelf.models)]
        for name in self._settings.api_models:
            if name not in known:
                raise ConfigError(
                    f"the API cannot offer {name!r}; this relay has: {', '.join(known) or 'none'}",
                    setting="api_models",
                )
        models = ServedModels(shelf, self._hub, self._clock, self._settings.api_models)
        async with AsyncExitStack() as stack:
            state = await asyncio.to_thread(
                State,
                self._directory,
                database=self._settings.database,
                failed=self._state_failed,
            )
            stack.callback(state.close)
            door = await self._open_door(stack)
            askers = Askers(self._settings, self._directory / "askers", door)
            await stack.enter_async_context(askers)
            keys = ApiKeys(state, self._clock.wall)
            api = Api(self._settings, keys, models, askers, self._hub.counters)
            stack.push_async_callback(api.close)
            self.app = api.app
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    def _state_failed(self, why: str) -> None:
        self._hub.counters.state_errors += 1
        LOG.error("state_failed", reason=why)

    async def _open_door(self, stack: AsyncExitStack) -> str:
        """The relay without TLS, for its own nodes; only this machine reaches it."""
        listener = socket.create_server(("127.0.0.1", 0))
        stack.callback(listener.close)
        name = f"127.0.0.1:{listener.getsockname()[1]}"
        self._hub.own_names.add(name)
        server = Server(server_config(make_app(self._settings, self._hub), self._hub))
        serving = asyncio.create_task(server.serve([listener]), name="relay door")

        async def stop() -> None:
            server.stop()
            await asyncio.gather(serving, return_exceptions=True)

        stack.push_async_callback(stop)
        await server.up.wait()
        return f"http://{name}"
