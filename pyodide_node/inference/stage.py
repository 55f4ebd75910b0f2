"""A stage: the sessions that this node runs blocks for. Sans-IO; serving.py is its shell.

Invariants:
1. Only the peer named at opening may feed a session, and only its asker may close it.
2. A step begins at or before the positions already held: going back is a rewind, repeating is
   harmless, a gap is an error.
3. Every queue is bounded; one asker cannot take all sessions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from pyodide_node.errors import ProtocolError, StageFailed
from pyodide_node.hosts.base import Buffer, Cache
from pyodide_node.wire import limits
from pyodide_node.wire.messages import OpenSession, Step
from pyodide_node.wire.tensors import check_activations

__all__ = ["IDLE_AFTER", "Stage", "StageSession", "Work"]

IDLE_AFTER = 300.0
"""Seconds without a step after which a session's cache is given back."""

Key = tuple[bytes, int]


@dataclass(slots=True)
class StageSession:
    """One hop of one asker's session."""

    asker: bytes
    opening: OpenSession
    cache: Cache
    release: Callable[[], None]
    used: float
    position: int = 0
    """Positions held, queued steps included."""
    queue: deque[Work] = field(default_factory=deque)

    @property
    def key(self) -> Key:
        return self.opening.session, self.opening.hop


@dataclass(frozen=True, slots=True)
class Work:
    """One step, ready to run."""

    session: StageSession
    position: int
    count: int
    hidden: Buffer


class Stage:
    """Sessions and their queues; whose turn it is."""

    def __init__(self, hidden_size: int) -> None:
        self._hidden_size = hidden_size
        self._sessions: dict[Key, StageSession] = {}
        self._ready: deque[Key] = deque()

    @property
    def busy(self) -> bool:
        """Whether anybody's session is open."""
        return bool(self._sessions)

    def keys(self) -> set[Key]:
        return set(self._sessions)

    def asker(self, feeder: bytes, session: bytes, hop: int) -> bytes | None:
        """Whose session it is that `feeder` feeds: nobody else's mistakes are that asker's."""
        found = self._sessions.get((session, hop))
        return found.asker if found is not None and found.opening.previous == feeder else None

    def check_opening(self, asker: bytes, opening: OpenSession) -> None:
        """Raises StageFailed when this session may not be opened."""
        if (opening.session, opening.hop) in self._sessions:
            raise StageFailed("this session is open already", reason="open")
        owned = sum(session.asker == asker for session in self._sessions.values())
        if owned >= limits.SESSIONS_PER_PEER or len(self._sessions) >= limits.SESSIONS:
            raise StageFailed("this node serves as many sessions as it can", reason="busy")

    def add(self, session: StageSession) -> None:
        self._sessions[session.key] = session

    def step(self, peer: bytes, message: Step, payload: Buffer, now: float) -> None:
        """Queue a step. Raises StageFailed (the asker must know) or ProtocolError (a liar)."""
        session = self._sessions.get((message.session, message.hop))
        if session is None:
            raise StageFailed("this session is not open here", reason="closed")
        if peer != session.opening.previous:
            raise ProtocolError("a step from a peer that does not feed this session")
        check_activations(payload, message.count, self._hidden_size)
        end = message.position + message.count
        if message.position > session.position:
            raise StageFailed(
                f"positions {session.position} to {message.position} are missing", reason="gap"
            )
        if end > session.cache.capacity:
            raise StageFailed("the session has no room for so many positions", reason="full")
        if len(session.queue) >= limits.QUEUED_STEPS:
            raise StageFailed("too many steps wait in this session", reason="flooded")
        session.queue.append(Work(session, message.position, message.count, payload))
        session.position = end
        session.used = now
        if session.key not in self._ready:
            self._ready.append(session.key)

    def next_work(self) -> Work | None:
        """The next step to run, sessions in turn."""
        while self._ready:
            session = self._sessions.get(self._ready.popleft())
            if session is None or not session.queue:
                continue
            work = session.queue.popleft()
            if session.queue:
                self._ready.append(session.key)
            return work
        return None

    def is_open(self, session: StageSession) -> bool:
        return self._sessions.get(session.key) is session

    def close(self, asker: bytes, session_id: bytes) -> None:
        """The asker is done with every hop of a session."""
        for session in list(self._sessions.values()):
            if session.asker == asker and session.opening.session == session_id:
                self.drop(session)

    def drop(self, session: StageSession) -> None:
        if self._sessions.pop(session.key, None) is not None:
            session.queue.clear()
            session.cache.close()
            session.release()

    def drop_peer(self, peer: bytes) -> None:
        """A peer left: its own sessions go; what it fed stays until its asker says so."""
        for session in list(self._sessions.values()):
            if session.asker == peer:
                self.drop(session)

    def drop_idle(self, now: float) -> None:
        for session in list(self._sessions.values()):
            if now - session.used > IDLE_AFTER:
                self.drop(session)

    def clear(self) -> list[StageSession]:
        """Drop every session; those that were open, so that their askers can be told."""
        sessions = list(self._sessions.values())
        for session in sessions:
            self.drop(session)
        return sessions
