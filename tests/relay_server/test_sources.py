"""Settings come from options, then the environment, then a file; what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from cyclopts import App

from pyodide_node.errors import ConfigError
from relay_server.settings import RelaySettings
from relay_server.sources import CONFIG_VARIABLE, config_file, sources

DEFAULTS = RelaySettings()


def settings(*arguments: str) -> RelaySettings:
    """As `kwaainet relay` would have them."""
    app = App(config=sources("relay"), result_action="return_value")

    @app.default
    def relay(*, settings: RelaySettings = DEFAULTS) -> RelaySettings:
        return settings

    made = app(list(arguments), exit_on_error=False, print_error=False)
    assert isinstance(made, RelaySettings)
    return made


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    path.write_text('[relay]\nport = 1000\nhost = "::1"\naudiences = ["a.example"]\nstun = false\n')
    monkeypatch.setenv(CONFIG_VARIABLE, str(path))
    return path


def test_a_file_says_what_is_said_nowhere_else(file: Path) -> None:
    made = settings()
    assert (made.port, made.host, made.stun) == (1000, "::1", False)
    assert made.audiences == {"a.example"}
    assert made.max_records == DEFAULTS.max_records


def test_the_environment_counts_more_and_an_option_most(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KWAAINET_RELAY_PORT", "2000")
    monkeypatch.setenv("KWAAINET_RELAY_STUN", "true")
    monkeypatch.setenv("KWAAINET_RELAY_AUDIENCES", "b.example c.example")
    made = settings("--host", "127.0.0.1")
    assert (made.port, made.host, made.stun) == (2000, "127.0.0.1", True)
    assert made.audiences == {"b.example", "c.example"}
    assert settings("--port", "3000").port == 3000


def test_an_option_may_be_named_in_the_singular_and_repeated(file: Path) -> None:
    made = settings("--audience", "b.example", "--audience", "c.example", "--trust-proxy", "::1")
    assert made.audiences == {"b.example", "c.example"}
    assert made.trusted_proxies == {"::1"}


def test_a_name_that_is_no_setting_is_refused(file: Path) -> None:
    file.write_text("[relay]\nprot = 3\n")
    with pytest.raises(Exception, match=r"\[relay\]\[prot\]"):
        settings()


def test_tables_of_others_do_not_matter(file: Path) -> None:
    file.write_text('[node]\nmodel = "m"\n')
    assert settings() == DEFAULTS


def test_a_file_that_was_named_must_be_there(file: Path) -> None:
    file.unlink()
    with pytest.raises(ConfigError, match="no settings file"):
        settings()


def test_without_a_name_it_is_the_users_and_need_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config_file() == tmp_path / "kwaainet" / "config.toml"
    assert settings() == DEFAULTS
