"""One node a directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyodide_node.errors import ConfigError
from relay_server.lifecycle.lock import holder, locked
from relay_server.lifecycle.places import Places


def test_who_holds_it_is_known_while_it_is_held(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "node.lock"
    assert holder(path) is None
    with locked(path):
        assert holder(path) == os.getpid()
    assert holder(path) is None


def test_a_second_node_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "node.lock"
    with locked(path), pytest.raises(ConfigError, match=f"process {os.getpid()}"), locked(path):
        pass
    with locked(path):
        pass


def test_what_a_dead_process_left_is_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "node.lock"
    path.write_text("1")
    assert holder(path) is None
    with locked(path):
        assert holder(path) == os.getpid()


def test_a_path_too_long_for_a_socket_is_told(tmp_path: Path) -> None:
    assert Places(Path("/tmp/state")).socket == Path("/tmp/state/node.sock")
    with pytest.raises(ConfigError, match="shorter --state"):
        _ = Places(tmp_path / ("x" * 100)).socket
