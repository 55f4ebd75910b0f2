"""The log turns over, and its end can be read while it grows."""

from __future__ import annotations

import logging
import logging.handlers
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_server.lifecycle.journal import LOG, end_of, follow, last_lines, log_to


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    before = list(LOG.handlers)
    path = tmp_path / "node.log"
    log_to(path)
    yield path
    for handler in set(LOG.handlers) - set(before):
        LOG.removeHandler(handler)
        handler.close()


def turn(path: Path) -> None:
    handler = LOG.handlers[-1]
    assert isinstance(handler, logging.handlers.RotatingFileHandler)
    handler.doRollover()


def test_lines_have_a_time_and_a_level(log: Path) -> None:
    LOG.info("hello %s", "you")
    LOG.debug("not this")
    assert [line.split(" ", 1)[1] for line in last_lines(log, 9)] == ["INFO hello you"]
    assert last_lines(log, 9)[0][:2] == "20"


def test_the_last_lines_reach_over_a_turn(log: Path) -> None:
    for number in range(4):
        LOG.info("%d", number)
        if number == 1:
            turn(log)
    assert [line[-1] for line in last_lines(log, 3)] == ["1", "2", "3"]
    assert last_lines(log.with_name("absent"), 3) == []


def test_who_follows_gets_what_comes_and_loses_nothing_at_a_turn(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LOG.info("before")
    words = iter(["a", "b", None, "c"])

    def write(_: float) -> None:
        """When the reader waits, something happens."""
        word = next(words)
        if word is None:
            turn(log)
            LOG.info("turned")
        else:
            LOG.info(word)

    monkeypatch.setattr("relay_server.lifecycle.journal.time.sleep", write)
    seen, end = end_of(log, 5)
    LOG.info("meanwhile")
    lines = follow(log, end)
    told = [next(lines).split()[-1] for _ in range(5)]
    assert [seen[0].split()[-1], *told] == ["before", "meanwhile", "a", "b", "turned", "c"]
    lines.close()
