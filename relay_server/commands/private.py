"""Private models on the command line: lock one, and say who may have its key.

The key and the grants lie in the state directory of the node that keeps them: `kwaainet start
--model NAME` on this machine gives the key to whom it was granted.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from build.shards.private import lock
from build.shards.source import Progress
from pyodide_node.delivery.private import (
    Grant,
    decode_grants,
    encode_grants,
    grants_name,
    key_name,
)
from pyodide_node.errors import ConfigError, ProtocolError
from pyodide_node.hosts.native import native_host
from pyodide_node.mesh.peer import did_key, key_of_did, public_key_of
from pyodide_node.model.locked import KEY_BYTES
from pyodide_node.model.manifest import Manifest
from relay_server.commands.node_options import state_directory
from relay_server.library import Library
from relay_server.settings import default_models

__all__ = ["grant", "grants", "lock_model", "revoke"]

_DAY = 86_400

State = Annotated[Path | None, Parameter(show_default=False)]


def lock_model(plain: Path, out: Path, state: Path | None, progress: Progress) -> Manifest:
    """Make the model in `plain` a private one in `out`; `plain` is removed.

    Its new key goes to the state directory of this machine's node, which becomes its keeper.
    """

    async def run() -> Manifest:
        host = await native_host(state_directory(state))
        try:
            key = secrets.token_bytes(KEY_BYTES)
            keepers = [host.keys.public_key]
            manifest = await asyncio.to_thread(lock, plain, out, key, keepers, progress)
            await host.store.put(key_name(manifest.model_id), key)
        finally:
            host.close()
        await asyncio.to_thread(shutil.rmtree, plain)
        return manifest

    return asyncio.run(run())


def grant(
    name: str,
    peer: str,
    *,
    days: int | None = None,
    state: State = None,
    models: State = None,
) -> None:
    """Let a peer have the key of a private model, from this machine's node.

    Parameters
    ----------
    name
        The model, as `kwaainet model list` has it.
    peer
        The node's did:key (its page and `kwaainet status` tell it), or its peer id.
    days
        How long. Default: until revoked. A node that has the key keeps it until it stops.
    state
        The keeper's state directory. Default: ~/.local/state/kwaainet.
    models
        The models' directory.
    """
    if days is not None and days < 1:
        raise ConfigError("--days must be 1 or more", setting="days")
    key = _peer_key(peer)
    expires = None if days is None else int(time.time()) + days * _DAY

    def change(grants: list[Grant]) -> list[Grant]:
        others = [one for one in grants if one.peer != key.hex()]
        return [*others, Grant(peer=key.hex(), expires=expires)]

    _change(name, change, state, models)
    until = "until revoked" if expires is None else f"for {days} days"
    Console(emoji=False, highlight=False).print(
        f"{did_key(key)} may have the key of {name} {until}", soft_wrap=True
    )


def revoke(name: str, peer: str, *, state: State = None, models: State = None) -> None:
    """Take a grant back. A node that has the key keeps it until it stops."""
    key = _peer_key(peer)
    before = _change(name, lambda grants: grants, state, models)
    if key.hex() not in {one.peer for one in before}:
        raise ConfigError(f"{peer} was not granted {name}", setting="peer")
    _change(name, lambda grants: [one for one in grants if one.peer != key.hex()], state, models)
    Console(emoji=False, highlight=False).print(
        f"{did_key(key)} gets the key of {name} no more", soft_wrap=True
    )


def grants(name: str, *, state: State = None, models: State = None) -> None:
    """List who may have the key of a private model."""
    for one in _change(name, lambda grants: grants, state, models):
        ends = "for good"
        if one.expires is not None:
            ends = "until " + time.strftime("%Y-%m-%d %H:%M", time.localtime(one.expires))
        _say(f"{did_key(bytes.fromhex(one.peer))}  {ends}")


def _say(line: str) -> None:
    # Rich would make a picture of the word between the colons of did:key:.
    Console(emoji=False, highlight=False).print(line, soft_wrap=True)


def _change(
    name: str,
    change: Callable[[list[Grant]], list[Grant]],
    state: Path | None,
    models: Path | None,
) -> list[Grant]:
    """The grants after the change. Raises ConfigError for a model that is not private here."""
    model_id = _private_model(name, models)

    async def run() -> list[Grant]:
        host = await native_host(state_directory(state))
        try:
            if await host.store.get(key_name(model_id)) is None:
                raise ConfigError(
                    f"this machine's node does not keep the key of {name}; run this where the"
                    " model was added, or name its state directory with --state",
                    setting="state",
                )
            before = decode_grants(await host.store.get(grants_name(model_id)))
            after = change(before)
            if after != before:
                await host.store.put(grants_name(model_id), encode_grants(after))
            return after
        finally:
            host.close()

    return asyncio.run(run())


def _private_model(name: str, models: Path | None) -> str:
    library = Library(models or default_models())
    if name not in library.names():
        raise ConfigError(f"there is no model {name!r} here; see `kwaainet model list`")
    manifest = library.manifest(name)
    if manifest.private is None:
        raise ConfigError(f"{name} is not private: everybody may run it")
    return manifest.model_id


def _peer_key(peer: str) -> bytes:
    try:
        return key_of_did(peer) if peer.startswith("did:") else public_key_of(peer)
    except ProtocolError:
        hint = "give the node's did:key, which its page and `kwaainet status` tell"
        raise ConfigError(f"{peer[:80]!r} names no node: {hint}", setting="peer") from None
