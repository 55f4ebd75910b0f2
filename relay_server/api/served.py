"""The models that the API offers, and whether the mesh can answer with them now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import anyio.to_thread

from pyodide_node.hosts.base import Clock
from relay_server.api.errors import no_such_model, not_served
from relay_server.api.limits import LABEL
from relay_server.hub import Hub
from relay_server.models import Model, ModelShelf

__all__ = ["ServedModels"]


class ServedModels:
    """`names` are those the operator lets be asked for; none: all on the shelf."""

    def __init__(self, shelf: ModelShelf, hub: Hub, clock: Clock, names: Iterable[str]) -> None:
        self._shelf = shelf
        self._hub = hub
        self._clock = clock
        self._names = frozenset(names)
        self._since = int(clock.wall())

    async def all(self) -> list[Model]:
        models = await anyio.to_thread.run_sync(self._shelf.models)
        return [model for model in models if not self._names or model.name in self._names]

    async def find(self, name: str) -> Model:
        """By name or id. Raises ApiError."""
        models = await self.all()
        for model in models:
            if name in (model.name, model.id):
                return model
        raise no_such_model(name, [model.name for model in models])

    async def served(self, name: str) -> Model:
        """As `find`, and every block has somebody. Raises ApiError."""
        model = await self.find(name)
        if not self.complete(model):
            raise not_served(model.name)
        return model

    def complete(self, model: Model) -> bool:
        """Whether every block of the model is announced by a node."""
        reached = 0
        entries = self._hub.directory.entries(bytes.fromhex(model.id), self._clock.wall())
        for first, last in sorted(
            (entry.announcement.first, entry.announcement.last) for entry in entries
        ):
            if first > reached:
                return False
            reached = max(reached, last)
        return reached >= model.blocks

    def describe(self, model: Model) -> dict[str, Any]:
        """As OpenAI lists a model, with what only a mesh has to say."""
        return {
            "id": model.name,
            "object": "model",
            "created": self._since,  # manifests have no date; this relay offers it since then
            "owned_by": "kwaainet",
            "kwaainet": {
                "model_id": model.id,
                "blocks": model.blocks,
                "license": model.license,
                "served": self.complete(model),
                "privacy": LABEL,
            },
        }
