"""The tab's ids and texts are Python's, for each family's tokenizer and text of many scripts."""

from __future__ import annotations

import json
import random

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.tokenizers.conftest import Tab
from tests.tokenizers.families import FAMILIES, described
from tests.tokenizers.scripts import AWKWARD, SENTENCES

RECENT = "\u0295"
"""Its category was changed in Unicode 17, where the browsers are and Oniguruma is not."""
DRAWN = "".join(sorted({*"".join(SENTENCES), *"".join(AWKWARD)}))

# What Unicode 14 does not know is left out: see the top of tokenizer.ts.
characters = st.one_of(
    st.characters(exclude_categories=["Cs", "Cn"], exclude_characters=RECENT),
    st.sampled_from(DRAWN),
    st.sampled_from(" \n\r\t'▁<|>"),
)
ADDED = sorted(
    {token["content"] for name in FAMILIES for token in json.loads(described(name))["added_tokens"]}
)
texts = st.lists(
    st.one_of(
        characters,
        st.sampled_from([*SENTENCES, *AWKWARD]),
        st.sampled_from(ADDED),
    ),
    max_size=25,
).map("".join)


def ids_of(python: Tokenizer, text: str) -> list[int]:
    return list(python.encode(text, add_special_tokens=False).ids)


def test_every_sentence_has_the_same_ids(tab: Tab, python: Tokenizer) -> None:
    given_texts = [*SENTENCES, *AWKWARD, "\n".join(SENTENCES)]
    for text, ids in zip(given_texts, tab.encode(*given_texts), strict=True):
        assert ids == ids_of(python, text), text


@given(text=texts)
def test_any_text_has_the_same_ids(tab: Tab, python: Tokenizer, text: str) -> None:
    assert tab.encode(text) == [ids_of(python, text)]


def test_every_id_alone_has_the_same_text(tab: Tab, python: Tokenizer) -> None:
    known = range(python.get_vocab_size())
    read = tab.decode(*([one] for one in known))
    assert read == [python.decode([one]) for one in known]


@given(data=st.data())
def test_any_ids_have_the_same_text(tab: Tab, python: Tokenizer, data: st.DataObject) -> None:
    # A few more than the tokenizer knows: models have such rows.
    known = st.integers(0, python.get_vocab_size() + 9)
    ids = data.draw(st.lists(st.one_of(known, st.integers(0, 300)), max_size=40))
    assert tab.decode(ids) == [python.decode(ids)]


@given(text=texts)
def test_what_was_encoded_reads_the_same(tab: Tab, python: Tokenizer, text: str) -> None:
    ids = ids_of(python, text)
    assert tab.decode(ids) == [python.decode(ids)]


def test_long_random_text_has_the_same_ids(tab: Tab, python: Tokenizer) -> None:
    draw = random.Random(5)
    many = ["".join(draw.choices(DRAWN, k=200)) for _ in range(50)]
    assert tab.encode(*many) == [ids_of(python, text) for text in many]


def test_the_special_tokens_are_known(node: Tab, family: str, python: Tokenizer) -> None:
    added = python.get_added_tokens_decoder().values()
    assert node.load(described(family)) == [token.content for token in added if token.special]
