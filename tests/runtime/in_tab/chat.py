"""Chat templates and tokenizers in a tab."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from pyodide_node.chat.chat import ChatMessage, Conversation
from pyodide_node.errors import KwaaiNetError
from pyodide_node.hosts.browser.ends import BrowserEnds
from pyodide_node.model.manifest import Chat


async def main(bridge: Any, argument: str) -> str:
    given = json.loads(argument)
    return json.dumps(globals()[given["part"]](bridge, given))


def templates(bridge: Any, given: dict[str, Any]) -> dict[str, Any]:
    began = time.perf_counter()
    messages = [ChatMessage(**one) for one in given["messages"]]
    rendered = {}
    for name, chat in given["chats"].items():
        talk = Conversation(Chat(**chat), ["<|im_start|>", "<|eot_id|>"])
        rendered[name] = "".join(talk.prompt(messages, given["wall"]).pieces)
    return {"rendered": rendered, "seconds": time.perf_counter() - began}


def attacks(bridge: Any, given: dict[str, Any]) -> dict[str, Any]:
    """What became of each template, and the longest time that one took."""
    from pyodide_node.chat.template import BoundedTemplate

    ends, longest = [], 0.0
    for source in given["sources"]:
        began = time.perf_counter()
        try:
            ends.append(BoundedTemplate(source).render({"l": [1, 2]}, str))
        except KwaaiNetError as error:
            ends.append(error.code)
        longest = max(longest, time.perf_counter() - began)
    return {"ends": ends, "longest": longest}


def tokenizers(bridge: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Ids and their text, for each tokenizer.json."""
    found = {}
    for name, described in given["described"].items():
        ends = BrowserEnds(
            None, None, BrowserEnds.tokenizer(bridge, described.encode()), None, None
        )
        ids = [ends.encode(text) for text in given["texts"]]
        texts = [ends.decode(one) for one in ids]
        found[name] = {"ids": ids, "texts": texts, "special": ends.special_tokens}
    return found


def loaded(bridge: Any, given: dict[str, Any]) -> bool:
    return "jinja2" in sys.modules
