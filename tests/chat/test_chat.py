"""Messages as each family of models takes them, and that no message can speak for another."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Template
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pyodide_node.chat.chat import MAX_CHARACTERS, ChatMessage, Conversation
from pyodide_node.errors import ConfigError
from pyodide_node.model.manifest import Chat
from tests.chat.templates import LLAMA2, LLAMA3, LLAMA31, MISTRAL, QWEN2, QWEN3, TEMPLATES

WALL = 1721952000.0 + 12 * 3600
"""26 July 2024, wherever the test runs."""

ASKED = [
    ChatMessage("system", "Be brief."),
    ChatMessage("user", " Hi "),
    ChatMessage("assistant", "Hello."),
    ChatMessage("user", "Who are you?"),
]
SPECIAL = {
    "llama2": ["<s>", "</s>", "<unk>"],
    "mistral": ["<s>", "</s>", "<unk>", "[INST]", "[/INST]"],
    **{
        key: ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
        for key in ("llama3", "llama3.1")
    },
    **{key: ["<|im_start|>", "<|im_end|>", "<|endoftext|>"] for key in ("qwen2", "qwen3")},
}


NAMES = {chat.template: name for name, chat in TEMPLATES.items()}


@cache
def talk(name: str) -> Conversation:
    return Conversation(TEMPLATES[name], SPECIAL[name])


def text_of(chat: Chat, messages: Sequence[ChatMessage]) -> str:
    return "".join(talk(NAMES[chat.template]).prompt(messages, WALL).pieces)


@pytest.mark.parametrize(
    ("chat", "expected"),
    [
        (
            LLAMA2,
            "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n Hi [/INST] Hello. </s>"
            "<s>[INST] Who are you? [/INST]",
        ),
        (
            LLAMA3,
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nWho are you?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        (
            LLAMA31,
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
            "Today Date: 26 Jul 2024\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nWho are you?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        (
            MISTRAL,
            "<s>[INST]  Hi [/INST] Hello.</s>[INST] Be brief.\n\nWho are you?[/INST]",
        ),
        (
            QWEN2,
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi <|im_end|>\n"
            "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nWho are you?<|im_end|>\n"
            "<|im_start|>assistant\n",
        ),
        (
            QWEN3,
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi <|im_end|>\n"
            "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nWho are you?<|im_end|>\n"
            "<|im_start|>assistant\n",
        ),
    ],
    ids=TEMPLATES,
)
def test_each_family_gets_its_own_form(chat: Chat, expected: str) -> None:
    assert text_of(chat, ASKED) == expected


def test_thoughts_of_former_turns_are_left_out_where_the_template_does() -> None:
    turns = [
        ChatMessage("user", "1+1?"),
        ChatMessage("assistant", "<think>\nhm\n</think>\n\n2"),
        ChatMessage("user", "2+2?"),
    ]
    assert "hm" not in text_of(QWEN3, turns)
    assert "<think>\nhm\n</think>\n\n2<|im_end|>" in text_of(QWEN3, turns[:2])


# --- against Jinja set up as transformers does it -----------------------------------------------

words = st.text("ab \n\t<|>_/éß字😀'\"{}%#\\", max_size=20)
roles = st.sampled_from(["user", "assistant", "system", "tool"])
talks = st.lists(st.builds(ChatMessage, roles, words), min_size=1, max_size=5)


class Refused(Exception):
    pass


def refuse(message: str) -> None:
    raise Refused(message)


@cache
def compiled(template: str) -> Template:
    """As utils/chat_template_utils.py of transformers does it, in short."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = partial(json.dumps, ensure_ascii=False)
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda pattern: "26 Jul 2024"
    return environment.from_string(template)


def reference(chat: Chat, messages: Sequence[ChatMessage]) -> str | None:
    """None when the template refuses."""
    try:
        return compiled(chat.template).render(
            messages=[{"role": one.role, "content": one.content} for one in messages],
            tools=None,
            documents=None,
            add_generation_prompt=True,
            **chat.special_tokens,
        )
    except Refused:
        return None


@pytest.mark.parametrize("chat", TEMPLATES.values(), ids=TEMPLATES)
@given(messages=talks)
def test_metering_changes_nothing(chat: Chat, messages: list[ChatMessage]) -> None:
    expected = reference(chat, messages)
    if expected is None:
        with pytest.raises(ConfigError, match="does not take these messages"):
            text_of(chat, messages)
    else:
        assert text_of(chat, messages) == expected


@pytest.mark.parametrize("chat", TEMPLATES.values(), ids=TEMPLATES)
def test_transformers_renders_the_same(chat: Chat) -> None:
    utils: Any = pytest.importorskip(
        "transformers.utils.chat_template_utils", reason="transformers is not installed here"
    )
    messages = [{"role": one.role, "content": one.content} for one in ASKED]
    rendered, _ = utils.render_jinja_template(
        conversations=[messages],
        chat_template=chat.template,
        add_generation_prompt=True,
        date_string="26 Jul 2024",
        **chat.special_tokens,
    )
    assert text_of(chat, ASKED) == rendered[0]


# --- what messages cannot do --------------------------------------------------------------------


@pytest.mark.parametrize("name", TEMPLATES)
@given(data=st.data())
def test_no_message_makes_a_special_token(name: str, data: st.DataObject) -> None:
    chat, special = TEMPLATES[name], SPECIAL[name]
    hostile = st.lists(
        st.one_of(st.sampled_from(special), st.sampled_from("<|>s_[]/"), words), max_size=6
    ).map("".join)
    contents = data.draw(st.lists(hostile, min_size=1, max_size=4))
    turns = [
        ChatMessage("assistant" if place % 2 else "user", content)
        for place, content in enumerate(contents)
    ]

    def tokens(turns: Sequence[ChatMessage]) -> list[str]:
        """The special tokens that an encoder of the pieces finds, from the first on."""
        pattern = "|".join(map(re.escape, sorted(special, key=len, reverse=True)))
        pieces = talk(name).prompt(turns, WALL).pieces
        return [found for piece in pieces for found in re.findall(pattern, piece)]

    harmless = [ChatMessage(turn.role, "x") for turn in turns]
    assert tokens(turns) == tokens(harmless)
    assert text_of(chat, turns) == reference(chat, turns)


@pytest.mark.parametrize("name", TEMPLATES)
@given(content=words)
def test_text_without_special_tokens_is_one_piece(name: str, content: str) -> None:
    prompt = talk(name).prompt([ChatMessage("user", content)], WALL)
    assert len(prompt.pieces) == 1
    assert not prompt.add_bos


def test_roles_are_cut_too_and_case_does_not_help() -> None:
    messages = [ChatMessage("user<|eot_id|>", "a<|EOT_ID|>b")]
    pieces = talk("llama3").prompt(messages, WALL).pieces
    assert pieces[0].endswith("<|start_header_id|>user<")
    assert pieces[1] == "|eot_id|><|end_header_id|>\n\na<"
    assert pieces[2].startswith("|EOT_ID|>b<|eot_id|>")


def test_a_model_without_a_template_continues_paragraphs() -> None:
    prompt = Conversation(None, ["</s>"]).prompt([*ASKED[:2], ChatMessage("user", "</s>")], WALL)
    assert prompt.pieces == ("Be brief.\n\n Hi \n\n<", "/s>")
    assert prompt.add_bos


def test_whoever_writes_the_whole_prompt_may_use_special_tokens() -> None:
    prompt = talk("qwen2").plain("<|im_start|>user\n")
    assert prompt.pieces == ("<|im_start|>user\n",)
    assert prompt.add_bos


def test_endless_messages_are_refused() -> None:
    with pytest.raises(ConfigError, match="leave some out"):
        text_of(LLAMA3, [ChatMessage("user", "a" * (MAX_CHARACTERS + 1))])


def test_a_long_talk_is_no_attack() -> None:
    turns = [ChatMessage("assistant" if n % 2 else "user", f"{n} " * 40) for n in range(999)]
    for chat in TEMPLATES.values():
        assert text_of(chat, turns) == reference(chat, turns)
