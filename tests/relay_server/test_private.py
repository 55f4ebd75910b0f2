"""`kwaainet model grant` and its like, on a model that was really locked."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from pyodide_node.errors import ConfigError
from pyodide_node.hosts.native.keys import load_keys
from pyodide_node.mesh.peer import did_key, peer_id
from pyodide_node.model.locked import file_numbers
from pyodide_node.model.manifest import Manifest
from relay_server.commands.private import grant, grants, lock_model, revoke
from relay_server.settings import default_models

DID = did_key(bytes(range(32)))


class Place:
    def __init__(self, folder: Path) -> None:
        self.state, self.models = folder / "state", folder / "models"
        models = default_models()
        assert models is not None
        self.source = models / "kwaai-docs"
        self.plain = folder / "plain"
        shutil.copytree(self.source, self.plain)
        told: list[tuple[str, int, int]] = []
        self.manifest: Manifest = lock_model(
            self.plain, self.models / "secret", self.state, lambda *step: told.append(step)
        )
        self.told = told

    def allow(self, peer: str, **options: int) -> None:
        grant("secret", peer, state=self.state, models=self.models, **options)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("private"))


def test_the_locked_model_is_whole_and_the_plain_one_is_gone(place: Place) -> None:
    assert not place.plain.exists()
    blobs = place.models / "secret" / "blobs"
    for blob in place.manifest.blobs().values():
        assert (blobs / blob.sha256).stat().st_size == blob.bytes
        assert blob.dag is None or (blobs / blob.dag).is_file()
    plain = {path.name for path in (place.source / "blobs").iterdir()}
    assert not plain & set(file_numbers(place.manifest))
    assert place.told[-1][1] == place.told[-1][2]


def test_the_key_is_for_its_owner_only(place: Place) -> None:
    files = [path for path in place.state.rglob("*") if path.is_file()]
    assert len(files) >= 2
    assert not any(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO) for path in files)
    assert place.manifest.private is not None
    owner = load_keys(place.state / "identity.pem").public_key
    assert place.manifest.private.keepers == [owner.hex()]


def test_grants_are_listed_renewed_and_taken_back(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.allow(DID, days=3)
    place.allow(DID)  # the later one counts
    other = peer_id(bytes(32))
    place.allow(other, days=1)
    capsys.readouterr()
    grants("secret", state=place.state, models=place.models)
    listed = capsys.readouterr().out.splitlines()
    assert listed[0] == f"{DID}  for good"
    assert listed[1].startswith(f"{did_key(bytes(32))}  until 20")
    for peer in (DID, other):
        revoke("secret", peer, state=place.state, models=place.models)
    capsys.readouterr()
    grants("secret", state=place.state, models=place.models)
    assert capsys.readouterr().out == ""


def test_mistakes_are_told(place: Place, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model"):
        grant("../secret", DID, state=place.state, models=place.models)
    with pytest.raises(ConfigError, match="names no node"):
        place.allow("did:web:example.org")
    with pytest.raises(ConfigError, match="1 or more"):
        place.allow(DID, days=0)
    with pytest.raises(ConfigError, match="not private"):
        grant("kwaai-docs", DID, state=place.state)
    with pytest.raises(ConfigError, match="does not keep the key"):
        grant("secret", DID, state=tmp_path, models=place.models)
    with pytest.raises(ConfigError, match="was not granted"):
        revoke("secret", DID, state=place.state, models=place.models)
