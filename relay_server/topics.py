"""Who wants to hear about which model, and how they hear it without a storm.

A change is passed on at once when the model has been quiet. Under many changes they share
messages, the more so the more subscribers there are: n nodes that announce to n subscribers
would otherwise cost n squared messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pyodide_node.wire import limits
from pyodide_node.wire.messages import Gone, Records, to_frame
from relay_server.node import Node
from relay_server.settings import GONE_KEPT, PUSHES_PER_SECOND

__all__ = ["Topics", "batches"]

Later = Callable[[float, Callable[[], None]], asyncio.TimerHandle | None]


def batches(records: list[bytes]) -> list[Records]:
    """The records in messages of as many as one may hold."""
    step = limits.RECORDS_PER_MESSAGE
    return [Records(records[i : i + step]) for i in range(0, len(records), step)]


class _Topic:
    __slots__ = ("busy", "gone", "pending", "subscribers")

    def __init__(self) -> None:
        self.subscribers: dict[Node, None] = {}
        self.pending: dict[bytes, bytes] = {}
        """Records by publisher."""
        self.gone: dict[bytes, None] = {}
        """Publishers that left, the longest gone first."""
        self.busy = False
        """Whether a push went out so recently that the next one waits."""


class Topics:
    """`later(seconds, call)` is the loop's; `write(node, type, body)` is the hub's bounded one."""

    def __init__(self, later: Later, write: Callable[[Node, int, bytes], None]) -> None:
        self._later = later
        self._write = write
        self._topics: dict[bytes, _Topic] = {}

    def __len__(self) -> int:
        return len(self._topics)

    def subscribe(self, node: Node, model: bytes) -> None:
        self._topics.setdefault(model, _Topic()).subscribers[node] = None
        node.topics += (model,)

    def leave(self, node: Node) -> None:
        """Forget all that a node subscribed to."""
        for model in node.topics:
            topic = self._topics.get(model)
            if topic is not None:
                topic.subscribers.pop(node, None)
                if not topic.subscribers:
                    del self._topics[model]
        node.topics = ()

    def changed(self, model: bytes, publisher: bytes, signed: bytes) -> None:
        """Pass a new record on to all but its publisher."""
        topic = self._topics.get(model)
        if topic is not None:
            topic.pending[publisher] = signed
            topic.gone.pop(publisher, None)
            if not topic.busy:
                self._push(model, topic)

    def gone(self, model: bytes, publisher: bytes) -> None:
        topic = self._topics.get(model)
        if topic is not None:
            topic.pending.pop(publisher, None)
            topic.gone[publisher] = None
            if len(topic.gone) > GONE_KEPT:
                del topic.gone[next(iter(topic.gone))]
            if not topic.busy:
                self._push(model, topic)

    def _push(self, model: bytes, topic: _Topic) -> None:
        topic.busy = False
        if self._topics.get(model) is not topic or not (topic.pending or topic.gone):
            return
        pending, topic.pending = topic.pending, {}
        gone, topic.gone = topic.gone, {}
        messages = [*batches(list(pending.values())), *map(Gone, gone)]
        for message in messages:
            frame = to_frame(message)
            for node in list(topic.subscribers):
                # Its own record alone would tell a node nothing.
                if not (len(pending) == 1 and node.key in pending):
                    self._write(node, frame.type, frame.body)
        topic.busy = True
        pushed = len(messages) * len(topic.subscribers)
        self._later(pushed / PUSHES_PER_SECOND, lambda: self._push(model, topic))
