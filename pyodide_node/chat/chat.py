"""How messages become a prompt.

A model with a chat template (Jinja, from its checkpoint) gets its own form, exactly as
transformers renders it. Models without one continue text: the messages are paragraphs of it.

What people write must not become the model's control tokens: a message with "<|im_end|>" in it
would end its turn and forge the next. transformers lets it. Here every special token's text in a
message is cut after its first character, and the pieces are encoded one by one, so that the model
reads the characters and not the token. Text without such a token is encoded in one piece.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Final

from pyodide_node.errors import ConfigError
from pyodide_node.model.manifest import Chat

if TYPE_CHECKING:
    from pyodide_node.chat.template import BoundedTemplate

__all__ = ["ChatMessage", "Conversation", "Prompt"]

MAX_CHARACTERS: Final = 1 << 20
"""Of all messages together: twice what a context of 128k tokens holds."""
_CUT: Final = "\ufdd0"
"""Marks a cut. Unicode keeps this code point for a program's own use: it is in no text."""


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn; `role` is "system", "user", "assistant" or what else the template knows."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """Text to encode piece by piece, special tokens in it recognised."""

    pieces: tuple[str, ...]
    add_bos: bool
    """False where the chat template puts it, or leaves it out, itself."""


class Conversation:
    """How one model is talked to."""

    def __init__(self, chat: Chat | None, special_tokens: Sequence[str]) -> None:
        """`special_tokens` are the texts of the tokenizer's special tokens."""
        self._chat = chat
        # Templates may change the case of what they are given.
        found = "|".join(re.escape(text) for text in special_tokens if len(text) > 1)
        self._special = re.compile(f"(?={found})", re.IGNORECASE) if found else None

    def plain(self, text: str) -> Prompt:
        """For completions: whoever writes the whole prompt may use special tokens."""
        return Prompt((text,), add_bos=True)

    def prompt(self, messages: Sequence[ChatMessage], wall: float) -> Prompt:
        """The messages, and the beginning of the model's turn. `wall` is `Clock.wall`.

        Raises ConfigError when the model does not take these messages, ManifestError when its
        template is wrong.
        """
        if sum(len(one.role) + len(one.content) for one in messages) > MAX_CHARACTERS:
            raise ConfigError(
                f"the messages have more than {MAX_CHARACTERS} characters; leave some out",
                setting="messages",
            )
        turns = [
            {"role": self._cut(one.role), "content": self._cut(one.content)} for one in messages
        ]
        if self._chat is None:
            text = "\n\n".join(turn["content"] for turn in turns)
        else:
            variables = {
                "messages": turns,
                "tools": None,
                "documents": None,
                "add_generation_prompt": True,
                **self._chat.special_tokens,
            }
            text = self._template.render(variables, datetime.fromtimestamp(wall).strftime)
        return Prompt(tuple(filter(None, text.split(_CUT))), add_bos=self._chat is None)

    @cached_property
    def _template(self) -> BoundedTemplate:
        # Jinja takes a while to import: only nodes that need it do.
        from pyodide_node.chat.template import BoundedTemplate

        assert self._chat is not None
        return BoundedTemplate(self._chat.template)

    def _cut(self, text: str) -> str:
        text = text.replace(_CUT, "\ufffd")
        if self._special is None:
            return text
        places = [found.start() + 1 for found in self._special.finditer(text)]
        bounds = zip([0, *places], [*places, len(text)], strict=True)
        return _CUT.join(text[start:end] for start, end in bounds)
