"""A bridge's settings are checked before it starts."""

from __future__ import annotations

from typing import Any

import pytest

from pyodide_node.errors import ConfigError
from relay_server.bridge.settings import BridgeSettings


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"relay": "relay.example.org"}, "https://relay"),
        ({"bootstraps": ("/ip4/1.2.3.4/tcp/1",)}, "names no peer"),
        ({"host": "localhost"}, "no IP address"),
        ({"port": 70_000}, "0 to 65535"),
        ({"announce_address": "1.2.3.4:5"}, "/ip4/ADDRESS/tcp/PORT"),
        ({"prefix": "my.model"}, "letters, digits"),
        ({"prefix": ""}, "letters, digits"),
        ({"every": 5.0}, "10 to 3600"),
        ({"look_every": 500.0}, "look_every"),
        ({"max_models": 0}, "max_models"),
    ],
)
def test_what_is_wrong_is_named(wrong: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        BridgeSettings(**wrong)


def test_the_defaults_are_sound() -> None:
    settings = BridgeSettings()
    assert settings.multiaddr == "/ip4/127.0.0.1/tcp/31330"
    assert settings.announce_state == "joining"
    assert settings.life == 300.0
    assert BridgeSettings(host="::").multiaddr == "/ip6/::/tcp/31330"
