"""What an operator may get wrong, said before anything listens."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyodide_node.errors import ConfigError
from relay_server import Relay, RelaySettings

ID = "12D3KooWFNmsRauQkRZVo5fSSHSdUVxk66xeUMKumucLUbg9auXW"
HERE = "/ip4/127.0.0.1/tcp/0"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"federation": "127.0.0.1:4001"}, "multiaddr such as"),
        ({"federation": HERE, "bootstrap": ("/ip4/127.0.0.1/tcp/1",)}, "ends in /p2p/"),
        ({"federation": HERE, "bootstrap": (f"relay.example/p2p/{ID}",)}, "ends in /p2p/"),
        ({"federation": HERE, "relays_only": ("friend",)}, "peer id"),
        ({"federation": HERE, "public_url": "https://relay.example"}, "wss://"),
        ({"federation": "/ip4/203.0.113.1/tcp/4001"}, "cannot be listened on"),
    ],
)
async def test_a_setting_that_makes_no_sense_is_named(
    settings: dict[str, object], why: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=why):
        async with Relay(RelaySettings(port=0, stun=False, state=tmp_path, **settings)):  # type: ignore[arg-type]
            pass


async def test_a_relay_keeps_its_name(tmp_path: Path) -> None:
    names = set()
    for _ in range(2):
        settings = RelaySettings(port=0, stun=False, federation=HERE, state=tmp_path)
        async with Relay(settings) as relay:
            (address,) = relay.addresses
            names.add(address.rpartition("/")[2])
            assert [one.own for one in relay.hub.neighbours] == [True]
    assert len(names) == 1
