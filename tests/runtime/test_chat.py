"""Chat templates and tokenizers in a real tab: its trimmed library, its stack, its Unicode."""

from __future__ import annotations

import msgspec
import pytest
from tokenizers import Tokenizer

from pyodide_node.chat.chat import Conversation
from tests.chat.templates import TEMPLATES
from tests.chat.test_chat import ASKED, WALL
from tests.runtime.conftest import InTab
from tests.tokenizers.families import FAMILIES, described
from tests.tokenizers.scripts import AWKWARD, SENTENCES

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

GROW = "{% set ns = namespace(x='a') %}{% for i in range(64) %}"
ATTACKS = [
    "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}",
    "{% set r = range(1000000) %}{% for a in r %}{{ r | select('string') | list }}{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% for m in l recursive %}{{ loop(l) }}{% endfor %}",
    GROW + "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    GROW + "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}",
    "{{ 'a' * 10 ** 9 }}",
    "{{ '%1000000000d' % 5 }}",
    "{{ strftime_now('%1000000000d') }}",
    "{{ " + "(" * 15_000 + "1" + ")" * 15_000 + " }}",
    "{{ " + "[" * 30_000,
    "{{ " + "not " * 15_000 + "1 }}",
    "{{ " + "+".join(["1"] * 20_000) + " }}",
    "{{ " + "~".join(["1"] * 20_000) + " }}",
    "{{ x" + ".a" * 20_000 + " }}",
    "{{ x" + "|upper" * 9_000 + " }}",
    "{{ " + "+".join(["1"] * 70) + " }}",
    "{{ x" + ".a" * 70 + " }}",
    "{{ x" + "|upper" * 70 + " }}",
    "{{ " + "(" * 60 + "1" + ")" * 60 + " }}",
    "{% if 1 %}" * 90 + "{% endif %}" * 90,
    "{% for i in l %}" * 50 + "{% endfor %}" * 50,
]


def test_templates_render_as_natively(in_tab: InTab) -> None:
    assert in_tab("chat.py", part="loaded") is False
    got = in_tab(
        "chat.py",
        part="templates",
        chats={name: msgspec.to_builtins(chat) for name, chat in TEMPLATES.items()},
        messages=[{"role": one.role, "content": one.content} for one in ASKED],
        wall=WALL,
    )
    for name, chat in TEMPLATES.items():
        expected = "".join(Conversation(chat, []).prompt(ASKED, WALL).pieces)
        assert got["rendered"][name] == expected


def test_hostile_templates_end_soon_and_hurt_nothing(in_tab: InTab) -> None:
    got = in_tab("chat.py", part="attacks", sources=ATTACKS)
    assert set(got["ends"]) <= {"ManifestError", "", "70", "1"}
    assert got["ends"][:9] == ["ManifestError"] * 9
    assert got["longest"] < 30
    # The interpreter is as well as before.
    assert in_tab("chat.py", part="attacks", sources=["{{ 1 + 1 }}"])["ends"] == ["2"]


def test_tokenizers_are_pythons(in_tab: InTab) -> None:
    texts = [*SENTENCES, *AWKWARD]
    found = in_tab(
        "chat.py",
        part="tokenizers",
        described={name: described(name) for name in FAMILIES},
        texts=texts,
    )
    for name in FAMILIES:
        python = Tokenizer.from_str(described(name))
        ids = [python.encode(text, add_special_tokens=False).ids for text in texts]
        assert found[name]["ids"] == ids
        assert found[name]["texts"] == [python.decode(one) for one in ids]
        added = python.get_added_tokens_decoder().values()
        assert found[name]["special"] == [token.content for token in added if token.special]
