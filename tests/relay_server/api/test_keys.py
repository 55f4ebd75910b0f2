"""Keys and quotas: nobody reads a key again, and nobody gets more than was granted."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyodide_node.errors import ConfigError
from relay_server.api.keys import ApiKey, ApiKeys, Lease, OverQuota, Usage
from relay_server.state import FILE, State
from tests.relay_server.databases import Database

NOON = 1_800_014_400.0
"""Of a day of UTC."""
HALF_A_DAY = 43_200


class Wall:
    now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def keys(database: Database, wall: Wall) -> Iterator[ApiKeys]:
    with database.open() as state:
        yield ApiKeys(state, wall)


def found(keys: ApiKeys, key: str) -> ApiKey:
    known = keys.find(key)
    assert known is not None
    return known


def test_a_key_is_found_until_it_is_revoked(keys: ApiKeys, wall: Wall) -> None:
    key = keys.add("ada", tokens_per_day=100)
    known = found(keys, key)
    assert (known.name, known.tokens_per_day, known.requests_per_minute) == ("ada", 100, None)
    wall.now += 60
    assert keys.revoke("ada").revoked == NOON + 60
    assert keys.find(key) is None
    with pytest.raises(ConfigError, match="no key 'ada'"):
        keys.revoke("ada")


def test_a_key_may_be_revoked_by_its_id_and_its_name_given_again(keys: ApiKeys, wall: Wall) -> None:
    old = keys.add("ada")
    keys.revoke(found(keys, old).id)
    wall.now += 1
    new = keys.add("ada")
    assert keys.find(old) is None
    assert found(keys, new).name == "ada"
    assert [key.revoked is None for key, _ in keys.list()] == [False, True]


def test_a_name_is_taken_once(keys: ApiKeys) -> None:
    keys.add("ada")
    with pytest.raises(ConfigError, match="already"):
        keys.add("ada")


@pytest.mark.parametrize("name", ["", " ada", "a\nb", "x" * 65, "a/b", "\x1b[31m"])
def test_a_name_is_plain(keys: ApiKeys, name: str) -> None:
    with pytest.raises(ConfigError, match="no name for a key"):
        keys.add(name)


@pytest.mark.parametrize("quota", [0, -1, 1 << 60])
def test_a_quota_allows_something(keys: ApiKeys, quota: int) -> None:
    with pytest.raises(ConfigError, match="quota"):
        keys.add("ada", tokens_per_day=quota)
    with pytest.raises(ConfigError, match="quota"):
        keys.add("ada", requests_per_minute=quota)


def test_what_is_almost_a_key_is_none(keys: ApiKeys) -> None:
    key = keys.add("ada")
    other = keys.add("bob")
    for wrong in ("", "kwaai-", key[:-1], key + "A", key.upper(), key[:-43] + other[-43:], "ключ"):
        assert keys.find(wrong) is None
    assert found(keys, key).name == "ada"


def test_the_secret_is_nowhere_in_the_state(tmp_path: Path) -> None:
    with State(tmp_path) as state:
        secret = ApiKeys(state).add("ada").rpartition("-")[2][-20:].encode()
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"ada" in stored
    assert secret not in stored


def test_tokens_of_a_day_are_counted_as_reserved_and_then_as_used(
    keys: ApiKeys, wall: Wall
) -> None:
    ada = found(keys, keys.add("ada", tokens_per_day=100))
    lease = keys.admit(ada, 60)
    with pytest.raises(OverQuota) as caught:
        keys.admit(ada, 50)
    assert caught.value.code == "insufficient_quota"
    assert "40 left" in str(caught.value)
    assert caught.value.retry_after == HALF_A_DAY
    keys.settle(lease, prompt_tokens=10, completion_tokens=20)
    assert keys.list()[0][1] == Usage(requests=1, prompt_tokens=10, completion_tokens=20)
    keys.settle(keys.admit(ada, 70), prompt_tokens=5, completion_tokens=70)
    with pytest.raises(OverQuota, match=" 0 left"):
        keys.admit(ada, 1)
    wall.now += HALF_A_DAY
    keys.admit(ada, 100)


def test_an_answer_over_midnight_counts_for_the_day_it_began(keys: ApiKeys, wall: Wall) -> None:
    ada = found(keys, keys.add("ada", tokens_per_day=100))
    lease = keys.admit(ada, 100)
    wall.now += HALF_A_DAY
    keys.settle(lease, 1, 2)
    assert keys.list()[0][1] == Usage(0, 0, 0)
    wall.now -= HALF_A_DAY
    assert keys.list()[0][1] == Usage(1, 1, 2)


def test_requests_of_a_minute_may_come_at_once_and_then_one_by_one(
    keys: ApiKeys, wall: Wall
) -> None:
    ada = found(keys, keys.add("ada", requests_per_minute=6))
    for _ in range(6):
        keys.admit(ada, 1)
    with pytest.raises(OverQuota) as caught:
        keys.admit(ada, 1)
    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.retry_after == 10
    wall.now += 10
    keys.admit(ada, 1)
    with pytest.raises(OverQuota):
        keys.admit(ada, 1)


def test_a_clock_that_is_set_back_locks_nobody_out_for_long(keys: ApiKeys, wall: Wall) -> None:
    ada = found(keys, keys.add("ada", requests_per_minute=6))
    keys.admit(ada, 1)
    wall.now -= 1_000_000
    with pytest.raises(OverQuota) as caught:
        keys.admit(ada, 1)
    assert caught.value.retry_after <= 60


def test_a_request_that_is_refused_costs_nothing(keys: ApiKeys) -> None:
    ada = found(keys, keys.add("ada", tokens_per_day=10, requests_per_minute=1))
    for _ in range(3):
        with pytest.raises(OverQuota, match="10 left"):
            keys.admit(ada, 11)
    keys.admit(ada, 10)


def test_quotas_outlive_the_relay(database: Database, wall: Wall) -> None:
    with database.open() as state:
        keys = ApiKeys(state, wall)
        key = keys.add("ada", tokens_per_day=100, requests_per_minute=1)
        keys.admit(found(keys, key), 100)  # killed before it is settled
    assert database.url or (database.folder / FILE).exists()
    with database.open() as state:
        keys = ApiKeys(state, wall)
        with pytest.raises(OverQuota, match="requests a minute"):
            keys.admit(found(keys, key), 1)
        wall.now += 60
        with pytest.raises(OverQuota, match=" 0 left"):
            keys.admit(found(keys, key), 1)


def test_two_relays_at_once_admit_no_more_than_one(database: Database, wall: Wall) -> None:
    with database.open() as one, database.open() as other:
        relays = [ApiKeys(one, wall), ApiKeys(other, wall)]
        tokens = found(relays[0], relays[0].add("tokens", tokens_per_day=100))
        requests = found(relays[0], relays[0].add("requests", requests_per_minute=10))
        together = Barrier(8)

        def ask(worker: int) -> tuple[int, int]:
            keys, admitted = relays[worker % 2], [0, 0]
            together.wait()
            for _ in range(8):
                for number, key in enumerate((tokens, requests)):
                    with contextlib.suppress(OverQuota):
                        keys.settle(keys.admit(key, 5), 0, 5)
                        admitted[number] += 1
            return admitted[0], admitted[1]

        with ThreadPoolExecutor(8) as pool:
            admitted = [*zip(*pool.map(ask, range(8)), strict=True)]
        assert [sum(each) for each in admitted] == [20, 10]
        assert {key.name: used.completion_tokens for key, used in relays[1].list()} == {
            "tokens": 100,
            "requests": 50,
        }


def test_two_relays_give_a_name_once(database: Database) -> None:
    with database.open() as one, database.open() as other:
        together = Barrier(2)

        def add(state: State) -> bool:
            together.wait()
            try:
                ApiKeys(state).add("ada")
            except ConfigError:
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(add, (one, other))) == [False, True]


@given(
    quota=st.integers(1, 200),
    steps=st.lists(st.tuples(st.integers(1, 100), st.integers(0, 100), st.booleans()), max_size=20),
)
def test_answers_never_pass_the_quota(
    tmp_path_factory: pytest.TempPathFactory, quota: int, steps: list[tuple[int, int, bool]]
) -> None:
    with State(tmp_path_factory.mktemp("state")) as state:
        keys = ApiKeys(state, Wall())
        ada = found(keys, keys.add("ada", tokens_per_day=quota))
        leases: list[tuple[Lease, int]] = []
        for tokens, made, settle in steps:
            with contextlib.suppress(OverQuota):
                leases.append((keys.admit(ada, tokens), min(made, tokens)))
            if settle and leases:
                lease, used = leases.pop()
                keys.settle(lease, 0, used)
            assert 0 <= keys.list()[0][1].completion_tokens <= quota


def test_half_a_day_is_half_a_day() -> None:
    assert math.fmod(NOON, 86_400) == HALF_A_DAY
