"""One answer under way: made in the askers' loop, read in the relay's."""

from __future__ import annotations

import asyncio
import concurrent.futures

from pyodide_node.errors import Cancelled
from pyodide_node.inference.asker import Answer
from pyodide_node.inference.generation import Chunk

__all__ = ["Running", "Silence"]

_Event = Answer | Chunk | Exception


class Silence(Exception):
    """Nothing has come for a while; more may."""


class Running:
    """Read it with `begun` and then `next`; `cancel` it when nobody reads on.

    What is not read yet waits here: at most the tokens of one answer.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[_Event] = asyncio.Queue()
        self._ended = asyncio.Event()
        self._future: concurrent.futures.Future[None] | None = None
        self._answer: Answer | None = None
        self.whole = False
        """Whether `next` has come to the end."""

    @property
    def answer(self) -> Answer:
        """How it came about."""
        assert self._answer is not None
        return self._answer

    @property
    def tokens(self) -> tuple[int, int]:
        """Of the prompt and of the answer, so far."""
        if self._answer is None:
            return 0, 0
        return len(self._answer.prompt_ids), len(self._answer.ids)

    async def begun(self) -> None:
        """Return when there is a route. Raises KwaaiNetError, ApiError when there is none."""
        event = await self._events.get()
        if isinstance(event, Exception):
            raise event

    async def next(self, patience: float | None = None) -> Chunk | None:
        """The next piece, or None at the end. Raises KwaaiNetError, and Silence when nothing has
        come for `patience` seconds."""
        try:
            async with asyncio.timeout(patience):
                event = await self._events.get()
        except TimeoutError:
            raise Silence from None
        if isinstance(event, Exception):
            raise event
        if isinstance(event, Chunk):
            return event
        self.whole = True
        return None

    def cancel(self) -> None:
        """The nodes are told at once."""
        if self._future is not None:
            self._future.cancel()

    async def ended(self) -> None:
        await self._ended.wait()

    # --- for who makes it, on any thread --------------------------------------------------

    def follow(self, future: concurrent.futures.Future[None]) -> None:
        self._future = future
        future.add_done_callback(self._done)

    def told(self, answer: Answer) -> None:
        """The route is known, has changed, or the answer is whole; only the first is news."""
        if self._answer is None:
            self._answer = answer
            self._put(answer)

    def add(self, chunk: Chunk) -> None:
        self._put(chunk)

    def _done(self, future: concurrent.futures.Future[None]) -> None:
        if future.cancelled():
            self._put(Cancelled("this answer was stopped"))
        elif (error := future.exception()) is not None:
            self._put(error if isinstance(error, Exception) else Cancelled("the relay stops"))
        elif self._answer is not None:
            self._put(self._answer)
        self._loop.call_soon_threadsafe(self._ended.set)

    def _put(self, event: _Event) -> None:
        self._loop.call_soon_threadsafe(self._events.put_nowait, event)
