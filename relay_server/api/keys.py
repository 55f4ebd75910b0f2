"""API keys: made once, stored as hashes, and how much each may ask for.

A key reads `kwaai-<id>-<secret>`: the id finds the row, the secret is 32 random bytes, so that
its plain SHA-256 cannot be guessed back and needs no salt.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from pyodide_node.errors import ConfigError
from relay_server.rates import Rate
from relay_server.state import State

__all__ = ["ApiKey", "ApiKeys", "Lease", "OverQuota", "Usage"]

_KEY: Final = re.compile(r"kwaai-([0-9a-f]{12})-([A-Za-z0-9_-]{43})\Z")
_NAME: Final = re.compile(r"[\w.@+ -]{1,64}\Z")
_MINUTE: Final = 60.0
_DAY: Final = 86_400
_MOST: Final = 1 << 53
"""Of any quota: what JSON numbers hold exactly."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key; times are seconds since 1970, quotas None where there is none."""

    id: str
    name: str
    tokens_per_day: int | None
    requests_per_minute: int | None
    created: float
    revoked: float | None


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one key on one day."""

    requests: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Lease:
    """One admitted answer: `reserved` tokens count as used until it is settled."""

    key: str
    day: str
    reserved: int


class OverQuota(Exception):
    """The key has used up what it may; `retry_after` in whole seconds."""

    def __init__(self, code: str, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after


class ApiKeys:
    """The keys in a relay's state. Calls block, and raise StoreError when it fails.

    Days are UTC's. A relay that is killed leaves what was reserved counted as used.
    """

    def __init__(self, state: State, wall: Callable[[], float] = time.time) -> None:
        self._state = state
        self._wall = wall

    def add(
        self,
        name: str,
        *,
        tokens_per_day: int | None = None,
        requests_per_minute: int | None = None,
    ) -> str:
        """The new key, which nobody can read again. Raises ConfigError."""
        if not _NAME.match(name) or name != name.strip():
            raise ConfigError(
                f"{name[:80]!r} is no name for a key: take 1 to 64 letters, digits, spaces or"
                " any of . _ @ + -",
                setting="name",
            )
        for what, quota in (("tokens", tokens_per_day), ("requests", requests_per_minute)):
            if quota is not None and not 1 <= quota <= _MOST:
                raise ConfigError(f"a quota of {quota} {what} allows nothing; take 1 or more")
        number, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        with self._state.transaction() as connection:
            made = connection.execute(
                text(
                    "INSERT INTO api_keys (id, name, hash, tokens_per_day, requests_per_minute,"
                    " created) VALUES (:id, :name, :hash, :tokens, :requests, :now)"
                    " ON CONFLICT (name) WHERE revoked IS NULL DO NOTHING RETURNING id"
                ),
                {
                    "id": number,
                    "name": name,
                    "hash": _digest(secret),
                    "tokens": tokens_per_day,
                    "requests": requests_per_minute,
                    "now": self._wall(),
                },
            ).first()
        if made is None:
            raise ConfigError(
                f"there is a key {name!r} already; revoke it first or take another name",
                setting="name",
            )
        return f"kwaai-{number}-{secret}"

    def revoke(self, name_or_id: str) -> ApiKey:
        """Refuse it from the next request on. Raises ConfigError when there is no such key."""
        with self._state.transaction() as connection:
            row = connection.execute(
                text(
                    "UPDATE api_keys SET revoked = :now"
                    " WHERE revoked IS NULL AND (name = :which OR id = :which) RETURNING *"
                ),
                {"now": self._wall(), "which": name_or_id},
            ).first()
        if row is None:
            raise ConfigError(
                f"there is no key {name_or_id[:80]!r} in use; `kwaainet api-key list`"
                " shows those there are",
                setting="name",
            )
        return _key(row)

    def list(self) -> list[tuple[ApiKey, Usage]]:
        """Every key ever made, oldest first, with what it used today."""
        with self._state.reading() as connection:
            rows = connection.execute(text("SELECT * FROM api_keys ORDER BY created, id")).all()
            return [(_key(row), _usage(connection, row.id, self._day())) for row in rows]

    def find(self, key: str) -> ApiKey | None:
        """The key's row if it is one and in use. Compared in constant time."""
        parsed = _KEY.match(key)
        if parsed is None:
            return None
        number, secret = parsed.groups()
        with self._state.reading() as connection:
            row = connection.execute(
                text("SELECT * FROM api_keys WHERE id = :id"), {"id": number}
            ).first()
        right = hmac.compare_digest(row.hash if row else bytes(32), _digest(secret))
        return _key(row) if row and right and row.revoked is None else None

    def admit(self, key: ApiKey, tokens: int) -> Lease:
        """Count a request that makes at most `tokens` tokens. Raises OverQuota.

        Prompts are counted when the answer is settled: what a prompt has in tokens is not known
        before. So a key may pass its quota by the prompts under way, and never by answers.
        """
        now = self._wall()
        day = self._day(now)
        with self._state.transaction() as connection:
            # Written to first: another relay with the same database then waits for this one.
            state = connection.execute(
                text(
                    "UPDATE api_keys SET rate_state = rate_state WHERE id = :id"
                    " RETURNING rate_state"
                ),
                {"id": key.id},
            ).scalar_one()
            rate_state = _spend_request(key, state, now)
            used = _usage(connection, key.id, day)
            spent = used.prompt_tokens + used.completion_tokens
            if key.tokens_per_day is not None and spent + tokens > key.tokens_per_day:
                left = max(0, key.tokens_per_day - spent)
                raise OverQuota(
                    "insufficient_quota",
                    f"this key may use {key.tokens_per_day} tokens a day (UTC) and has {left}"
                    f" left, but the request asks for up to {tokens}; lower max_tokens, wait, or"
                    " ask the relay's operator for more",
                    math.ceil(_DAY - now % _DAY),
                )
            connection.execute(
                text("UPDATE api_keys SET rate_state = :state WHERE id = :id"),
                {"state": rate_state, "id": key.id},
            )
            connection.execute(
                text(
                    "INSERT INTO api_usage (key, day, requests, completion_tokens)"
                    " VALUES (:key, :day, 1, :tokens) ON CONFLICT (key, day) DO UPDATE SET"
                    " requests = api_usage.requests + 1, completion_tokens ="
                    " api_usage.completion_tokens + excluded.completion_tokens"
                ),
                {"key": key.id, "day": day, "tokens": tokens},
            )
        return Lease(key.id, day, tokens)

    def settle(self, lease: Lease, prompt_tokens: int, completion_tokens: int) -> None:
        """Replace what was reserved by what was used."""
        with self._state.transaction() as connection:
            connection.execute(
                text(
                    "UPDATE api_usage SET prompt_tokens = prompt_tokens + :prompt,"
                    " completion_tokens = completion_tokens + :change"
                    " WHERE key = :key AND day = :day"
                ),
                {
                    "prompt": prompt_tokens,
                    "change": completion_tokens - lease.reserved,
                    "key": lease.key,
                    "day": lease.day,
                },
            )

    def _day(self, now: float | None = None) -> str:
        at = datetime.fromtimestamp(self._wall() if now is None else now, UTC)
        return at.date().isoformat()


def _spend_request(key: ApiKey, state: float, now: float) -> float:
    """The new state of the key's rate; a minute's requests may come at once."""
    if key.requests_per_minute is None:
        return 0.0
    rate = Rate(key.requests_per_minute / _MINUTE, key.requests_per_minute)
    # A state further ahead than this was written before the clock was set back.
    state = rate.spend(min(state, now + _MINUTE), now)
    wait = rate.excess(state, now)
    if wait > 1e-6:
        raise OverQuota(
            "rate_limit_exceeded",
            f"this key may make {key.requests_per_minute} requests a minute;"
            f" try again in {math.ceil(wait)} s",
            math.ceil(wait),
        )
    return state


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(**{name: getattr(row, name) for name in ApiKey.__slots__})


def _usage(connection: Connection, key: str, day: str) -> Usage:
    row = connection.execute(
        text(
            "SELECT requests, prompt_tokens, completion_tokens FROM api_usage"
            " WHERE key = :key AND day = :day"
        ),
        {"key": key, "day": day},
    ).first()
    return Usage(*row) if row else Usage(0, 0, 0)
