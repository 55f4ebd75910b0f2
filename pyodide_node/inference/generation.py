"""One answer as it grows: ids in, text out. Pure: the engine and the network are elsewhere.

Text leaves at token boundaries only, so that ids and text handed out always belong together and
an answer can be taken up again from its ids anywhere. Text that might turn out to be the
beginning of a stop string, or half a character, waits for the next token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pyodide_node.chat.chat import ChatMessage
from pyodide_node.errors import ConfigError
from pyodide_node.inference.sampling import Sampling

__all__ = ["Chunk", "FinishReason", "Generation", "InferenceRequest"]

FinishReason = Literal["stop", "length"]
_UNFINISHED = "\ufffd"
"""What a byte-level tokenizer decodes half a character to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceRequest:
    """What a caller asks for: to continue a prompt, or to answer messages if there are any.
    `resume_ids` are ids of the same answer that it already has."""

    prompt: str = ""
    messages: tuple[ChatMessage, ...] = ()
    max_tokens: int = 128
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    resume_ids: tuple[int, ...] = ()
    model: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.max_tokens <= 1 << 17:
            raise ConfigError("max_tokens must be 1 or more", setting="max_tokens")
        if len(self.stop) > 16 or not all(0 < len(stop) <= 256 for stop in self.stop):
            raise ConfigError("stop takes up to 16 strings of 1 to 256 characters", setting="stop")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Text to append, and the ids that it stands for."""

    text: str
    ids: tuple[int, ...]


class Generation:
    """Feeds on sampled ids; `finished` says why it ended."""

    def __init__(
        self,
        prompt_ids: Sequence[int],
        request: InferenceRequest,
        decode: Callable[[Sequence[int]], str],
        eos_ids: Sequence[int],
    ) -> None:
        self.prompt_ids = list(prompt_ids)
        self.ids: list[int] = []
        self.text = ""
        self.finished: FinishReason | None = None
        self._request = request
        self._decode = decode
        self._eos = frozenset(eos_ids)
        self._told = 0
        self._context = 0
        self._resumed = 0
        # Taken again one by one: what waited for the next token then must wait again.
        for token in request.resume_ids:
            if self.finished is None:
                self.accept(token)
        self._resumed = len(self.ids)

    @property
    def known(self) -> list[int]:
        """Every id so far, prompt first: what a new route must be fed."""
        return self.prompt_ids + self.ids

    @property
    def position(self) -> int:
        """Position of the next id."""
        return len(self.prompt_ids) + len(self.ids)

    def accept(self, token: int) -> Chunk | None:
        """Take the next id; what may be shown now, if anything."""
        if token in self._eos:
            self.finished = "stop"
            return self._release(self._pending())
        self.ids.append(token)
        text = self._pending()
        found = min(
            (at for stop in self._request.stop if (at := text.find(stop)) >= 0), default=None
        )
        if found is not None:
            self.finished = "stop"
            return self._release(text[:found])
        if len(self.ids) >= self._request.max_tokens:
            self.finished = "length"
            return self._release(text)
        if text.endswith(_UNFINISHED) or self._may_stop(text):
            return None
        return self._release(text)

    def _pending(self) -> str:
        """Text of the ids not told yet. The chunk before them is decoded too: SentencePiece's
        tokenizers drop the space that a text begins with, and only that one."""
        before = self._decode(self.ids[self._context : self._told])
        return self._decode(self.ids[self._context :])[len(before) :]

    def _may_stop(self, text: str) -> bool:
        return any(
            text.endswith(stop[:length])
            for stop in self._request.stop
            for length in range(1, min(len(stop), len(text) + 1))
        )

    def _release(self, text: str) -> Chunk | None:
        ids = tuple(self.ids[max(self._told, self._resumed) :])
        # Context begins where a chunk did, never between the bytes of a character; and with
        # text, for a space after nothing at all would be taken for the first one.
        if text.strip():
            self._context = self._told
        self._told = len(self.ids)
        self.text += text
        return Chunk(text, ids) if text or ids else None
