"""A private model: everybody may carry its files, and only who was granted its key can run it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest

from build.shards.private import lock
from pyodide_node.delivery.private import Grant, encode_grants, grants_name, key_name
from pyodide_node.errors import NotGranted, SealError, Unreachable
from pyodide_node.hosts.simulated import virtual
from pyodide_node.model.locked import KEY_BYTES
from pyodide_node.model.manifest import Manifest, encode_manifest

from .swarm import SOURCE, Swarm, ask, swarm

KEY = bytes(range(KEY_BYTES))


async def locked(net: Swarm, *, keepers: tuple[str, ...] = ("owner",)) -> Manifest:
    """The swarm's model, private now; the owner's machine has its key."""
    name, web = net.model.manifest.name, net.network.web
    owners = [net.host(keeper).keys.public_key for keeper in keepers]
    with TemporaryDirectory() as place:
        plain, out = Path(place, "plain"), Path(place, "out")
        (plain / "blobs").mkdir(parents=True)
        (plain / "manifest.json").write_bytes(encode_manifest(net.model.manifest))
        for sha256, data in net.model.blobs.items():
            (plain / "blobs" / sha256).write_bytes(data)
        manifest = lock(plain, out, KEY, owners)
        for url in [url for url in web if url.startswith(SOURCE)]:
            del web[url]
        index = {"models": [{"name": name, "id": manifest.model_id}]}
        web[SOURCE + "index.json"] = msgspec.json.encode(index)
        web[f"{SOURCE}{name}/manifest.json"] = encode_manifest(manifest)
        for path in (out / "blobs").iterdir():
            web[f"{SOURCE}{name}/blobs/{path.name}"] = path.read_bytes()
    await net.host("owner").store.put(key_name(manifest.model_id), KEY)
    return manifest


async def grant(net: Swarm, manifest: Manifest, *peers: str, expires: int | None = None) -> None:
    grants = [Grant(net.host(peer).keys.public_key.hex(), expires) for peer in peers]
    await net.host("owner").store.put(grants_name(manifest.model_id), encode_grants(grants))


@virtual
async def test_a_granted_peer_answers_as_the_open_model_does() -> None:
    async with swarm() as net:
        await grant(net, await locked(net), "ada")
        await net.node("owner", max_blocks=4)
        ada = await net.node("ada", max_blocks=4)
        assert (await ask(ada)).ids == net.expected(12)


@virtual
async def test_what_lies_at_a_peer_is_locked() -> None:
    async with swarm() as net:
        manifest = await locked(net)
        await grant(net, manifest, "ada")
        await net.node("owner")
        ada = await net.node("ada")
        await ask(ada, 2)
        held = await net.host("ada").store.held()
        plain = {net.model.manifest.embed, net.model.manifest.head, *net.model.manifest.layers}
        assert {layer.sha256 for layer in manifest.layers} <= set(held)
        assert not {blob.sha256 for blob in plain} & set(held)
        assert await net.host("ada").store.get(key_name(manifest.model_id)) is None


@virtual
async def test_a_peer_that_was_not_granted_the_model_is_told_what_to_ask_for() -> None:
    async with swarm() as net:
        await grant(net, await locked(net), "somebody else")
        await net.node("owner")
        with pytest.raises(NotGranted, match=r"kwaainet model grant .* did:key:z"):
            await net.node("ada")
        assert net.nodes["ada"].model is not None
        assert (await net.nodes["ada"].status())["span"] is None


@virtual
async def test_a_grant_ends() -> None:
    async with swarm() as net:
        now = int(net.host("owner").clock.wall())
        await grant(net, await locked(net), "ada", "bob", expires=now + 3600)
        await net.node("owner")
        await net.node("ada")
        await asyncio.sleep(3600)
        with pytest.raises(NotGranted):
            await net.node("bob")


@virtual
async def test_a_keeper_that_is_away_is_named_and_another_is_asked() -> None:
    async with swarm() as net:
        await grant(net, await locked(net, keepers=("spare", "owner")), "ada")
        await net.node("owner")
        await net.node("ada")
        await net.nodes.pop("owner").close()
        with pytest.raises(Unreachable, match="keeper"):
            await net.node("bob")


@virtual
async def test_a_keeper_with_another_key_gives_it_to_nobody_who_would_use_it() -> None:
    async with swarm() as net:
        manifest = await locked(net)
        await grant(net, manifest, "ada")
        await net.node("owner")
        await net.host("owner").store.put(key_name(manifest.model_id), bytes(KEY_BYTES))
        with pytest.raises(NotGranted):
            await net.node("ada")


@virtual
async def test_a_file_that_was_changed_does_not_open() -> None:
    async with swarm() as net:
        keys = net.host("ada").keys
        with pytest.raises(SealError):
            await keys.unlock(KEY, 0, bytes(100))
        with pytest.raises(SealError):
            await keys.unlock(KEY, 0, b"short")
