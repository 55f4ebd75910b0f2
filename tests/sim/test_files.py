"""Model files from sources that fail or lie, and storage that is denied, full or capped."""

from __future__ import annotations

import json

import pytest

from pyodide_node.config import ResourceLimits
from pyodide_node.errors import IntegrityError, ManifestError, StoreError, Unreachable
from pyodide_node.hosts.simulated import virtual
from pyodide_node.mesh.peer import did_key
from pyodide_node.model.publisher import sign_manifest
from tests.wire.keys import keys_of

from .swarm import SOURCE, Swarm, ask, swarm

MIRROR = "https://mirror.test/models/"


def folder(net: Swarm, source: str = SOURCE) -> str:
    return f"{source}{net.model.manifest.name}/"


def layer(net: Swarm, index: int = 0) -> str:
    return net.model.manifest.layers[index].sha256


def mirror(net: Swarm) -> None:
    """The same model at a second source."""
    net.network.web[MIRROR + "index.json"] = net.network.web[SOURCE + "index.json"]
    net.model.publish(net.network.web, folder(net, MIRROR).rstrip("/"))


async def works(net: Swarm, **config: object) -> None:
    ada = await net.node("ada", **config)
    assert (await ask(ada, 4)).ids == net.expected(4)


def damaged(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(("change", "times"), [(damaged, 2), (lambda data: data[:-1], 1)])
def test_a_shard_that_is_not_its_hash_is_fetched_again_and_then_elsewhere(
    change: object, times: int
) -> None:
    @virtual
    async def run() -> None:
        async with swarm() as net:
            mirror(net)
            url = folder(net) + "blobs/" + layer(net)
            net.network.web[url] = change(net.network.web[url])  # type: ignore[operator]
            await works(net, sources=(SOURCE, MIRROR))
            requests = net.hosts["ada"].store.requests
            assert requests.count(url) == times
            assert requests.count(folder(net, MIRROR) + "blobs/" + layer(net)) == 1

    run()


@virtual
async def test_a_shard_that_no_source_has_whole_is_named_and_nothing_serves_it() -> None:
    async with swarm() as net:
        url = folder(net) + "blobs/" + layer(net)
        net.network.web[url] = damaged(net.network.web[url])
        with pytest.raises(IntegrityError, match="not what its hash says"):
            await net.node("ada")
        assert net.nodes["ada"]._work.holding.span is None  # type: ignore[union-attr]
        assert net.nodes["ada"].budget.memory_used < 1_000_000


@virtual
async def test_a_shard_that_its_source_does_not_answer_for_comes_from_another() -> None:
    async with swarm() as net:
        mirror(net)
        del net.network.web[folder(net) + "blobs/" + layer(net)]
        await works(net, sources=(SOURCE, MIRROR))


@virtual
async def test_a_source_that_is_down_gives_way_to_the_next() -> None:
    async with swarm() as net:
        mirror(net)
        del net.network.web[SOURCE + "index.json"]
        await works(net, sources=(SOURCE, MIRROR))


@virtual
async def test_no_source_at_all_says_which_does_not_answer() -> None:
    async with swarm() as net:
        net.network.web.clear()
        with pytest.raises(Unreachable, match=r"index\.json does not answer"):
            await net.node("ada")


INDEXES = {
    "not json": b"<html>",
    "no list": b"{}",
    "path in a name": json.dumps({"models": [{"name": "../x", "id": "0" * 64}]}).encode(),
    "id that is none": json.dumps({"models": [{"name": "x", "id": "0" * 63}]}).encode(),
    "not utf-8": b'{"models": [{"name": "\xff\xff", "id": ""}]}',
    "nested": b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b',"models":[]}',
}


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES.keys())
def test_a_malformed_index_is_refused_and_the_next_source_used(index: bytes) -> None:
    @virtual
    async def run() -> None:
        async with swarm() as net:
            mirror(net)
            net.network.web[SOURCE + "index.json"] = index
            await works(net, sources=(SOURCE, MIRROR))
            with pytest.raises(ManifestError, match="index is malformed"):
                await net.node("bob", sources=(SOURCE,))

    run()


@virtual
async def test_an_endless_index_is_refused_and_the_next_source_used() -> None:
    async with swarm() as net:
        mirror(net)
        net.network.web[SOURCE + "index.json"] = b" " * (1 << 21)
        await works(net, sources=(SOURCE, MIRROR))
        with pytest.raises(StoreError, match="larger than"):
            await net.node("bob", sources=(SOURCE,))


@virtual
async def test_a_manifest_other_than_the_index_names_is_refused_and_the_next_source_used() -> None:
    async with swarm() as net:
        mirror(net)
        url = folder(net) + "manifest.json"
        net.network.web[url] = net.network.web[url].replace(b'"MIT"', b'"BSD"')
        await works(net, sources=(SOURCE, MIRROR))
        with pytest.raises(ManifestError, match="not the one that the index names"):
            await net.node("bob", sources=(SOURCE,))


@virtual
async def test_a_model_pinned_by_its_id_is_not_replaced_by_another_of_its_name() -> None:
    async with swarm() as net:
        name, wanted = net.model.manifest.name, net.model.manifest.model_id
        await works(net, model=f"{name}@{wanted}")
        with pytest.raises(Exception, match="no source offers") as caught:
            await net.node("bob", model=f"{name}@{'0' * 64}")
        assert caught.value.data["known"] == [name]  # type: ignore[attr-defined]


# --- who published it ---------------------------------------------------------------------


async def sign(net: Swarm, signer: str, model_id: str = "") -> str:
    """Put a signature into the index; the signer's DID."""
    keys = keys_of(signer)
    signed = await sign_manifest(keys, model_id or net.model.manifest.model_id)
    index = json.loads(net.network.web[SOURCE + "index.json"])
    index["models"][0]["signed"] = json.loads(signed)
    net.network.web[SOURCE + "index.json"] = json.dumps(index).encode()
    return did_key(keys.public_key)


@virtual
async def test_a_model_may_be_signed_and_its_publisher_pinned() -> None:
    async with swarm() as net:
        did = await sign(net, "publisher")
        await works(net)
        await net.node("bob", publisher=did)
        with pytest.raises(ManifestError, match="not signed by did:key:z"):
            await net.node("cyd", publisher=did_key(keys_of("another").public_key))


@virtual
async def test_a_signature_that_does_not_hold_is_refused_whoever_is_trusted() -> None:
    async with swarm() as net:
        await sign(net, "publisher", model_id="0" * 64)
        with pytest.raises(ManifestError, match="not its publisher's"):
            await net.node("ada")


@virtual
async def test_a_publisher_that_is_no_key_is_refused() -> None:
    async with swarm() as net:
        did = await sign(net, "publisher")
        index = net.network.web[SOURCE + "index.json"]
        net.network.web[SOURCE + "index.json"] = index.replace(did.encode(), b"did:web:example")
        with pytest.raises(ManifestError, match=r"no did:key"):
            await net.node("ada")


@virtual
async def test_a_pinned_publisher_must_have_signed_and_the_next_source_may_have_it() -> None:
    async with swarm() as net:
        mirror(net)
        did = await sign(net, "publisher")
        unsigned = net.network.web[MIRROR + "index.json"]
        net.network.web[MIRROR + "index.json"] = net.network.web[SOURCE + "index.json"]
        net.network.web[SOURCE + "index.json"] = unsigned
        await works(net, sources=(SOURCE, MIRROR), publisher=did)
        with pytest.raises(ManifestError, match="not signed by"):
            await net.node("bob", sources=(SOURCE,), publisher=did)


@virtual
async def test_an_index_may_name_mirrors_on_the_web_and_nothing_else() -> None:
    async with swarm() as net:
        mirror(net)
        index = json.loads(net.network.web[SOURCE + "index.json"])
        index["mirrors"] = ["file:///etc/", "/etc/", "ftp://x/", MIRROR]
        net.network.web[SOURCE + "index.json"] = json.dumps(index).encode()
        del net.network.web[folder(net) + "blobs/" + layer(net)]
        await works(net)
        asked = net.hosts["ada"].store.requests
        assert any(url.startswith(MIRROR) for url in asked)
        assert all(url.startswith("https://") for url in asked)


@virtual
async def test_a_model_is_found_by_its_id_alone() -> None:
    async with swarm() as net:
        await works(net, model=net.model.manifest.model_id)


# --- storage ------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["denied", "full"])
def test_storage_that_is_denied_or_full_keeps_nothing_and_stops_nothing(fault: str) -> None:
    @virtual
    async def run() -> None:
        async with swarm() as net:
            host = net.host("ada")
            setattr(host.store.faults, fault, True)
            await works(net)
            assert await host.store.held() == {}
            storage = (await net.nodes["ada"].status())["budget"]["storage"]
            assert storage["persistent"] is (fault == "full")
            assert storage["used"] == 0

    run()


@virtual
async def test_a_rotten_file_on_the_disk_is_fetched_again() -> None:
    async with swarm() as net:
        ada = await net.node("ada")
        fetch = ada._fetch
        assert fetch is not None
        await ada.close()
        store = net.hosts["ada"].store
        store.faults.damaged.add(layer(net))
        store.requests.clear()
        blob = net.model.manifest.layers[0]
        assert await fetch(blob.sha256, blob.bytes) == net.model.blobs[blob.sha256]
        assert store.requests == [folder(net) + "blobs/" + blob.sha256]


@virtual
async def test_what_the_storage_cap_has_no_room_for_is_used_but_not_kept() -> None:
    async with swarm() as net:
        await works(net, limits=ResourceLimits(cpu=100, memory=1000, storage=0))
        assert await net.hosts["ada"].store.held() == {}
        status = await net.nodes["ada"].status()
        assert status["budget"]["storage"]["used"] == 0
        assert status["downloaded"] > 0


@virtual
async def test_a_download_that_failed_does_not_count_as_stored() -> None:
    async with swarm() as net:
        mirror(net)
        url = folder(net) + "blobs/" + layer(net)
        net.network.web[url] = damaged(net.network.web[url])
        ada = await net.node("ada", sources=(SOURCE, MIRROR))
        assert ada._storage.used == sum((await net.hosts["ada"].store.held()).values())


@virtual
async def test_what_was_kept_before_counts_towards_the_cap() -> None:
    async with swarm() as net:
        ada = await net.node("ada")
        held = sum((await net.hosts["ada"].store.held()).values())
        assert ada._storage.used == held > 0
        await ada.close()
        again = await net.node("ada")
        assert again._storage.used == held
