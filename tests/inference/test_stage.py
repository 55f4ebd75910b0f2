"""The sessions that a node runs blocks for, against a model of them that is too simple to err."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from pyodide_node.errors import ProtocolError, StageFailed
from pyodide_node.inference.stage import IDLE_AFTER, Stage, StageSession, Work
from pyodide_node.wire import limits
from pyodide_node.wire.messages import OpenSession, Step

HIDDEN = 4
ASKERS = [bytes([name]) * 32 for name in b"abcde"]
FEEDER = b"f" * 32


class FakeCache:
    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def opening(session: int, hop: int, capacity: int = 100) -> OpenSession:
    return OpenSession(
        session=session.to_bytes(16, "big"),
        hop=hop,
        model=bytes(32),
        first=0,
        last=1,
        capacity=capacity,
        previous=FEEDER,
        next=bytes(32),
        final=True,
    )


def step(session: int, hop: int, position: int, count: int) -> Step:
    return Step(session.to_bytes(16, "big"), hop, position, count)


def hidden(count: int, value: float = 0.5) -> bytes:
    return np.full((count, HIDDEN), value, "<f4").tobytes()


@dataclass
class Opened:
    """What a session ought to be like."""

    asker: bytes
    session: StageSession
    cache: FakeCache
    position: int = 0
    queue: deque[tuple[int, int]] = field(default_factory=deque)
    used: float = 0.0
    released: int = 0


class StageMachine(RuleBasedStateMachine):
    """Any order of openings, steps, turns, closings and departures."""

    keys: Bundle[tuple[int, int]] = Bundle("keys")

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage(HIDDEN)
        self.now = 0.0
        self.open: dict[tuple[int, int], Opened] = {}
        self.ended: list[Opened] = []

    @rule(
        target=keys,
        session=st.integers(0, 4),
        hop=st.integers(0, 2),
        asker=st.sampled_from(ASKERS),
        capacity=st.integers(1, 100),
    )
    def opens(self, session: int, hop: int, asker: bytes, capacity: int) -> object:
        key = session, hop
        message = opening(session, hop, capacity)
        owned = sum(one.asker == asker for one in self.open.values())
        if key in self.open or owned >= limits.SESSIONS_PER_PEER:
            with pytest.raises(StageFailed) as caught:
                self.stage.check_opening(asker, message)
            assert caught.value.data["reason"] == ("open" if key in self.open else "busy")
            return multiple()
        self.stage.check_opening(asker, message)
        cache = FakeCache(capacity)

        def release() -> None:
            opened.released += 1

        opened = Opened(
            asker, StageSession(asker, message, cache, release, self.now), cache, used=self.now
        )
        self.stage.add(opened.session)
        self.open[key] = opened
        return key

    @rule(key=keys, back=st.integers(0, 10), count=st.integers(1, 40))
    def feeds(self, key: tuple[int, int], back: int, count: int) -> None:
        """A step that follows on, or goes back: a repeat is going back by its own length."""
        known = self.open.get(key)
        position = max(0, known.position - back) if known else 0
        reason = None
        if known is None:
            reason = "closed"
        elif position + count > known.cache.capacity:
            reason = "full"
        elif len(known.queue) >= limits.QUEUED_STEPS:
            reason = "flooded"
        if reason is not None:
            with pytest.raises(StageFailed) as caught:
                self.stage.step(FEEDER, step(*key, position, count), hidden(count), self.now)
            assert caught.value.data["reason"] == reason
            return
        assert known is not None
        self.stage.step(FEEDER, step(*key, position, count), hidden(count), self.now)
        known.position, known.used = position + count, self.now
        known.queue.append((position, count))

    @rule(key=keys, gap=st.integers(1, 1000))
    def leaves_a_gap(self, key: tuple[int, int], gap: int) -> None:
        known = self.open.get(key)
        if known is not None:
            with pytest.raises(StageFailed, match="are missing") as caught:
                self.stage.step(FEEDER, step(*key, known.position + gap, 1), hidden(1), self.now)
            assert caught.value.data["reason"] == "gap"

    @rule(key=keys, sender=st.sampled_from(ASKERS))
    def is_fed_by_a_stranger(self, key: tuple[int, int], sender: bytes) -> None:
        if key in self.open:
            with pytest.raises(ProtocolError, match="does not feed"):
                self.stage.step(sender, step(*key, 0, 1), hidden(1), self.now)

    @rule(key=keys, bad=st.sampled_from([b"", hidden(2), hidden(1)[:-1], hidden(1, np.nan)]))
    def is_fed_rubbish(self, key: tuple[int, int], bad: bytes) -> None:
        if key in self.open:
            with pytest.raises(ProtocolError, match="activations"):
                self.stage.step(FEEDER, step(*key, 0, 1), bad, self.now)

    @rule(turns=st.integers(1, 4))
    def works(self, turns: int) -> None:
        """Each turn takes the oldest step of some session; nobody waits twice as long."""
        seen: list[tuple[bytes, int]] = []
        waiting = {known.session.key for known in self.open.values() if known.queue}
        for _ in range(turns):
            work = self.stage.next_work()
            if work is None:
                assert not any(known.queue for known in self.open.values())
                return
            known = next(one for one in self.open.values() if one.session is work.session)
            assert (work.position, work.count) == known.queue.popleft()
            seen.append(work.session.key)
        assert len(set(seen)) == min(turns, len(waiting))

    @rule(key=keys, asker=st.sampled_from(ASKERS))
    def is_closed_by(self, key: tuple[int, int], asker: bytes) -> None:
        self.stage.close(asker, key[0].to_bytes(16, "big"))
        self._end(lambda other, known: other[0] == key[0] and known.asker == asker)

    @rule(asker=st.sampled_from(ASKERS))
    def sees_leave(self, asker: bytes) -> None:
        self.stage.drop_peer(asker)
        self._end(lambda _, known: known.asker == asker)

    @rule(seconds=st.floats(0, IDLE_AFTER))
    def waits(self, seconds: float) -> None:
        self.now += seconds
        self.stage.drop_idle(self.now)
        self._end(lambda _, known: self.now - known.used > IDLE_AFTER)

    @rule()
    def is_cleared(self) -> None:
        assert {one.key for one in self.stage.clear()} == {
            known.session.key for known in self.open.values()
        }
        self._end(lambda *_: True)

    def _end(self, which: object) -> None:
        for key in [key for key, known in self.open.items() if which(key, known)]:  # type: ignore[operator]
            self.ended.append(self.open.pop(key))

    @invariant()
    def agrees_with_the_model(self) -> None:
        assert self.stage.keys() == {known.session.key for known in self.open.values()}
        assert self.stage.busy == bool(self.open)
        for known in self.open.values():
            assert known.session.position == known.position
            assert self.stage.is_open(known.session)
            assert known.cache.closed == known.released == 0

    @invariant()
    def what_ended_gave_everything_back_once(self) -> None:
        for known in self.ended:
            assert known.cache.closed == known.released == 1
            assert not known.session.queue
            assert not self.stage.is_open(known.session)


TestStage = StageMachine.TestCase


def opened(stage: Stage, session: int, asker: bytes = ASKERS[0]) -> StageSession:
    message = opening(session, 0)
    stage.check_opening(asker, message)
    made = StageSession(asker, message, FakeCache(100), lambda: None, 0.0)
    stage.add(made)
    return made


def test_all_askers_together_cannot_open_more_than_the_stage_keeps() -> None:
    stage = Stage(HIDDEN)
    for number in range(limits.SESSIONS):
        opened(stage, number, asker=number.to_bytes(32, "big"))
    with pytest.raises(StageFailed, match="as many sessions as it can"):
        opened(stage, 1000, asker=b"z" * 32)


def test_a_long_prompt_of_one_session_does_not_hold_up_another() -> None:
    stage = Stage(HIDDEN)
    opened(stage, 1)
    opened(stage, 2)
    for chunk in range(5):
        stage.step(FEEDER, step(1, 0, chunk * 4, 4), hidden(4), 0.0)
    stage.step(FEEDER, step(2, 0, 0, 1), hidden(1), 0.0)
    order = [work.session.opening.session[-1] for _ in range(6) if (work := stage.next_work())]
    assert order == [1, 2, 1, 1, 1, 1]


def test_the_work_is_what_was_sent() -> None:
    stage = Stage(HIDDEN)
    session = opened(stage, 1)
    stage.step(FEEDER, step(1, 0, 0, 3), hidden(3, 0.25), 0.0)
    assert stage.next_work() == Work(session, 0, 3, hidden(3, 0.25))
    assert stage.next_work() is None


def test_only_who_feeds_a_session_learns_whose_it_is() -> None:
    stage = Stage(HIDDEN)
    opened(stage, 1)
    assert stage.asker(FEEDER, (1).to_bytes(16, "big"), 0) == ASKERS[0]
    assert stage.asker(ASKERS[1], (1).to_bytes(16, "big"), 0) is None
    assert stage.asker(FEEDER, (2).to_bytes(16, "big"), 0) is None
