"""Answers as OpenAI's API writes them, whole and as server-sent events."""

from __future__ import annotations

import secrets
import time
from typing import Any, Final

import msgspec

from pyodide_node.inference.asker import Answer

__all__ = ["DONE", "Reply", "event"]

DONE: Final = b"data: [DONE]\n\n"


def event(data: Any) -> bytes:
    """One server-sent event; JSON has no line breaks in it."""
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


class Reply:
    """One answer's envelope: the same id, time and model on all that belongs to it."""

    def __init__(self, model: str, model_id: str, *, chat: bool) -> None:
        self._chat = chat
        self._usage_wanted = False
        self._head = {
            "id": ("chatcmpl-" if chat else "cmpl-") + secrets.token_hex(12),
            "created": int(time.time()),
            "model": model,
            # The same fingerprint, seed and request give the same text.
            "system_fingerprint": f"fp_{model_id[:12]}",
        }

    def whole(self, answer: Answer) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "logprobs": None}
        if self._chat:
            choice["message"] = {"role": "assistant", "content": answer.text, "refusal": None}
        else:
            choice["text"] = answer.text
        choice["finish_reason"] = answer.finish_reason
        kind = "chat.completion" if self._chat else "text_completion"
        return {**self._head, "object": kind, "choices": [choice], "usage": usage(answer)}

    # --- streamed -------------------------------------------------------------------------

    def opening(self, *, include_usage: bool) -> list[bytes]:
        """What a stream begins with."""
        self._usage_wanted = include_usage
        return [self._part({"role": "assistant", "content": ""})] if self._chat else []

    def text(self, text: str) -> bytes:
        return self._part({"content": text} if self._chat else text)

    def ending(self, answer: Answer) -> list[bytes]:
        """The reason it ended, the usage if it was asked for, and the end."""
        events = [self._part({} if self._chat else "", answer.finish_reason)]
        if self._usage_wanted:
            events.append(event({**self._shell(), "choices": [], "usage": usage(answer)}))
        return [*events, DONE]

    def _part(self, content: Any, finish_reason: str | None = None) -> bytes:
        choice = {
            "index": 0,
            "delta" if self._chat else "text": content,
            "logprobs": None,
            "finish_reason": finish_reason,
        }
        extra = {"usage": None} if self._usage_wanted else {}
        return event({**self._shell(), "choices": [choice], **extra})

    def _shell(self) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        return {**self._head, "object": kind}


def usage(answer: Answer) -> dict[str, int]:
    made, read = len(answer.ids), len(answer.prompt_ids)
    return {
        "prompt_tokens": read,
        "completion_tokens": made,
        "total_tokens": read + made,
    }
