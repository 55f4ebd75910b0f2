"""Real shards of a tiny model for the native host's engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from build.shards.builder import build
from build.shards.huggingface import Checkpoint
from tests.build.conftest import write_checkpoint


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("host-shards")
    build(Checkpoint(write_checkpoint(folder / "checkpoint")), folder / "shards", "tiny")
    return folder / "shards"
