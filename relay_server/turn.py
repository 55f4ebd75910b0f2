"""Access to the operator's TURN servers: credentials that end soon, made for one node each.

The form is coturn's `use-auth-secret` (draft-uberti-behave-turn-rest-00): the user name begins
with the second at which it ends, and the password is a MAC of it under a secret that the relay
shares with coturn. coturn keeps no list, and the relay none.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Final

from pyodide_node.errors import ConfigError
from pyodide_node.wire import limits
from pyodide_node.wire.messages import IceServer

if TYPE_CHECKING:
    from relay_server.settings import RelaySettings

__all__ = ["TurnAccess", "check_ice", "turn_access"]

_SHORTEST_LIFETIME: Final = 10.0
"""Seconds: less would end before clocks that differ a little, or a slow node, had used it."""

_SERVERS: Final = limits.ICE_SERVERS // 2
"""STUN and TURN servers each; browsers grow slow with more than a few."""

_HOST: Final = r"([\w.-]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?"
_URL: Final = {
    "STUN": re.compile(rf"stuns?:{_HOST}"),
    "TURN": re.compile(rf"turns?:{_HOST}(\?transport=(udp|tcp))?"),
}
"""RFC 7064 and 7065: a browser makes no connection at all when one of them is wrong."""

_SHORTEST_SECRET: Final = 16
"""Characters: whoever guesses the secret relays what they like."""

_NAME: Final = 16
"""Hex digits of a node's name: enough to tell nodes apart."""


class TurnAccess:
    """Credentials for `servers`, each good for `lifetime` seconds."""

    def __init__(self, servers: tuple[str, ...], secret: bytes, lifetime: float) -> None:
        self._servers = servers
        self._secret = secret
        self._lifetime = lifetime

    @property
    def renew_after(self) -> float:
        """Seconds after which a node should have new ones: whatever it has then lasts as long."""
        return self._lifetime / 2

    def for_node(self, public_key: bytes, now: float) -> list[IceServer]:
        """`now` is the wall clock's, which coturn's must agree with."""
        username = f"{int(now + self._lifetime)}:{self._name(public_key)}"
        # coturn's form of this is HMAC-SHA1, which is not broken by SHA-1's collisions.
        mac = hmac.digest(self._secret, username.encode(), hashlib.sha1)
        credential = base64.b64encode(mac).decode()
        return [IceServer(url, username, credential) for url in self._servers]

    def _name(self, public_key: bytes) -> str:
        """The same for every credential of a node, so that coturn's quotas hold over renewals;
        its logs do not tell whose it is."""
        return hmac.digest(self._secret, b"name" + public_key, hashlib.sha256).hex()[:_NAME]


def turn_access(settings: RelaySettings) -> TurnAccess | None:
    """What the settings say; None where there is no TURN. Raises ConfigError."""
    file = settings.turn_secret_file
    if file is None:
        return None
    try:
        secret = file.read_bytes().strip()
    except OSError as error:
        raise ConfigError(
            f"the TURN secret cannot be read: {file}: {error.strerror}", setting="turn_secret_file"
        ) from None
    if len(secret) < _SHORTEST_SECRET:
        raise ConfigError(
            f"the TURN secret in {file} is shorter than {_SHORTEST_SECRET} characters; "
            "make one with `openssl rand -hex 32`",
            setting="turn_secret_file",
        )
    return TurnAccess(settings.turn_servers, secret, settings.turn_lifetime)


def check_ice(settings: RelaySettings) -> None:
    """Raises ConfigError for servers that no node could use."""
    if bool(settings.turn_servers) != (settings.turn_secret_file is not None):
        text = "TURN needs both its servers and the file with their secret"
        raise ConfigError(text, setting="turn_servers")
    named = (("STUN", settings.ice_servers), ("TURN", settings.turn_servers))
    for kind, urls in named:
        setting = "ice_servers" if kind == "STUN" else "turn_servers"
        if len(urls) > _SERVERS:
            raise ConfigError(f"at most {_SERVERS} {kind} servers", setting=setting)
        for url in urls:
            if not _URL[kind].fullmatch(url):
                text = f"{url!r} is no {kind} server; write {kind.lower()}:host:port"
                raise ConfigError(text, setting=setting)
    if settings.turn_lifetime < _SHORTEST_LIFETIME:
        text = f"turn_lifetime must be {_SHORTEST_LIFETIME:g} or more"
        raise ConfigError(text, setting="turn_lifetime")
