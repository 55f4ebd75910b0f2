"""One setting changes, everything else in the file stays as a person wrote it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyodide_node.errors import ConfigError
from relay_server.settings_file import SettingsFile

WRITTEN = """\
# mine
[relay]
port = 8081  # not 8080

[node]
relay = "http://a"
"""


def test_comments_and_order_stay(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(WRITTEN)
    file = SettingsFile(path)
    file.put("node", "relay", "http://b")
    file.put("node", "threads", 2)
    assert path.read_text() == WRITTEN.replace("//a", "//b") + "threads = 2\n"
    file.put("node", "threads", None)
    file.put("node", "threads", None)
    assert file.table("node") == {"relay": "http://b"}
    assert file.table("relay") == {"port": 8081}


def test_a_file_is_made_where_there_is_none(tmp_path: Path) -> None:
    file = SettingsFile(tmp_path / "deep" / "config.toml")
    assert file.table("node") == {}
    file.put("node", "health", True)
    assert file.path.read_text() == "[node]\nhealth = true\n"


def test_what_is_no_toml_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[node\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        SettingsFile(path).put("node", "threads", 2)
    assert path.read_text() == "[node\n"


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be"):
        SettingsFile(tmp_path / "file" / "config.toml").put("node", "threads", 2)
