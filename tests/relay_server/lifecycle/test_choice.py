"""The model most served that is here; else what the relay offers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pyodide_node.errors import ManifestError, Unreachable
from pyodide_node.hosts.native.store import NativeStore
from relay_server.lifecycle.choice import Network, choose, read_network, shelve
from relay_server.models import Model
from relay_server.settings import default_models

NOTHING = Network({}, {})


def model(name: str) -> Model:
    return Model(name=name, id=f"id-{name}", blocks=4, bytes=1, license="MIT")


HERE = [model("a"), model("b"), model("c")]


@pytest.mark.parametrize(
    ("wanted", "here", "network", "chosen"),
    [
        ("", HERE, Network({"id-b": 5, "id-c": 2, "id-z": 9}, {"id-z": "z"}), "id-b"),
        ("", HERE, Network({"id-z": 9}, {"id-z": "z", "id-c": "c"}), "id-c"),
        ("", HERE, Network({"id-z": 9}, {"id-y": "y", "id-z": "z"}), "id-y"),
        ("", HERE, NOTHING, "id-a"),
        ("", [], NOTHING, ""),
        ("b", HERE, Network({"id-a": 3}, {"id-a": "a"}), "id-b"),
        ("b", HERE, Network({}, {"other-b": "b"}), "other-b"),
        ("absent", HERE, NOTHING, "absent"),
    ],
)
def test_what_is_chosen(wanted: str, here: list[Model], network: Network, chosen: str) -> None:
    assert choose(wanted, here, network).model == chosen


def test_the_reason_is_told() -> None:
    one = choose("", HERE, Network({"id-b": 1}, {}))
    assert (one.name, one.why) == ("b", "it is here, and 1 node serves it")
    assert "2 nodes serve it" in choose("", HERE, Network({"id-b": 2}, {})).why


def test_a_shelf_follows_the_models_that_are_here(tmp_path: Path) -> None:
    models = default_models()
    assert models is not None
    mine = tmp_path / "models"
    mine.mkdir()
    (mine / "one").symlink_to(next(models.glob("*/manifest.json")).parent)
    here, source = shelve(mine, tmp_path / "shelf")
    assert [one.name for one in here] == ["one"]
    assert Path(f"{source}one/manifest.json").is_file()
    assert json.loads(Path(f"{source}index.json").read_bytes())["models"][0]["id"] == here[0].id
    (mine / "one").rename(mine / "two")
    shelve(mine, tmp_path / "shelf")
    assert not Path(f"{source}one").exists()
    assert Path(f"{source}two/manifest.json").is_file()


async def test_a_map_that_makes_no_sense_is_said_so(tmp_path: Path) -> None:
    store = NativeStore(tmp_path / "blobs", tmp_path / "values")
    try:
        with pytest.raises(Unreachable):
            await read_network(store, str(tmp_path))
        (tmp_path / "models").mkdir()
        (tmp_path / "map.json").write_text('{"models": [{"id": "x", "nodes": 3, "new": 1}]}')
        (tmp_path / "models/index.json").write_text('{"models": [{"id": "x", "name": "n"}]}')
        assert await read_network(store, str(tmp_path)) == Network({"x": 3}, {"x": "n"})
        (tmp_path / "map.json").write_text('{"models": 3}')
        with pytest.raises(ManifestError, match="malformed"):
            await read_network(store, str(tmp_path))
    finally:
        store.close()
