"""Which model a node should serve: the one most served that is already on this machine.

What the network serves comes from the relay's map (`/map.json`), what it offers from its
index (`/models/index.json`), what is here from the models' directory.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from pyodide_node.errors import KwaaiNetError, ManifestError, RemoteError, Unreachable
from pyodide_node.hosts.base import Store
from pyodide_node.wire.malformed import MALFORMED
from relay_server.models import Model, ModelShelf

__all__ = ["Choice", "Network", "choose", "read_network", "shelve"]

_LIMIT: Final = 4 << 20
"""Bytes of a relay's map; one of 32 models with 80 blocks takes 100 KB."""


class _Served(Struct, frozen=True):
    id: str
    nodes: int


class _Map(Struct, frozen=True):
    models: list[_Served]


class _Offered(Struct, frozen=True):
    id: str
    name: str


class _Index(Struct, frozen=True):
    models: list[_Offered]


@dataclass(frozen=True, slots=True)
class Network:
    """What a relay tells of its network; ids are hashes of manifests in hex."""

    nodes: Mapping[str, int]
    """How many nodes serve each model."""
    offered: Mapping[str, str]
    """Names of the models that the relay offers by their ids, its default first."""


@dataclass(frozen=True, slots=True)
class Choice:
    model: str
    """Id, or a name that only the sources can resolve; "" is the first that they list."""
    name: str
    why: str
    """For people."""


async def read_network(store: Store, relay: str) -> Network:
    """From the relay at `relay`, as "https://host". Raises Unreachable, ManifestError."""
    try:
        told = msgspec.json.decode(await store.fetch(f"{relay}/map.json", _LIMIT), type=_Map)
        data = await store.fetch(f"{relay}/models/index.json", _LIMIT)
        index = msgspec.json.decode(data, type=_Index)
    except RemoteError:
        raise
    except KwaaiNetError as error:
        raise Unreachable(str(error), url=relay) from error
    except MALFORMED as error:
        raise ManifestError(f"the map of {relay} is malformed: {error}", url=relay) from None
    return Network(
        {model.id: model.nodes for model in told.models},
        {model.id: model.name for model in index.models},
    )


def choose(wanted: str, here: Sequence[Model], network: Network) -> Choice:
    """`wanted` is a name, an id or ""; `here` are the models on this machine."""
    local = {model.id: model.name for model in here}
    names = local | dict(network.offered)
    if wanted:
        # Of two models of one name the network's is meant: others serve that one.
        same = [id for known in (network.offered, local) for id in known if known[id] == wanted]
        model = same[0] if same else wanted
        return Choice(model, names.get(model, wanted), "as asked for")
    served = [id for id in local if network.nodes.get(id)]
    offered = [id for id in network.offered if id in local]
    if served:
        model = max(served, key=lambda id: (network.nodes[id], names[id]))
        nodes = network.nodes[model]
        why = f"it is here, and {nodes} {'node serves' if nodes == 1 else 'nodes serve'} it"
    elif offered:
        model, why = offered[0], "it is here, and the relay offers it"
    elif network.offered:
        model, why = next(iter(network.offered)), "the relay's first; none that is here is known"
    elif here:
        model, why = here[0].id, "it is here, and the relay tells of none"
    else:
        model, why = "", "none is here, and the relay tells of none"
    return Choice(model, names.get(model, ""), why)


def shelve(models: Path, folder: Path) -> tuple[list[Model], str]:
    """The models in the directory `models`, and a source of them for `delivery.catalog`.

    The source is made in `folder`: an index, and links to the models.
    """
    here = ModelShelf(models).models()
    folder.mkdir(parents=True, exist_ok=True)
    kept = {model.name for model in here}
    for link in folder.iterdir():
        if link.is_symlink() and link.name not in kept:
            link.unlink()
    for model in here:
        link, target = folder / model.name, (models / model.name).absolute()
        if not link.is_symlink() or Path(os.readlink(link)) != target:
            link.unlink(missing_ok=True)
            link.symlink_to(target, target_is_directory=True)
    index = msgspec.json.encode({"models": here})
    draft = folder / "index.json.part"
    draft.write_bytes(index)
    draft.replace(folder / "index.json")
    return here, f"{folder.absolute()}/"
