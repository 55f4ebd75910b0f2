"""Text that is handed out token by token is the text of all tokens, whatever the tokenizer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pyodide_node.inference.generation import Chunk, Generation, InferenceRequest
from tests.tokenizers.test_equality import ids_of, texts

END = 1 << 21


def chunks_of(python: Tokenizer, ids: list[int], *, resumed: int = 0) -> list[Chunk]:
    request = InferenceRequest(prompt="x", max_tokens=len(ids) + 2, resume_ids=tuple(ids[:resumed]))
    answer = Generation([7], request, lambda some: str(python.decode(list(some))), [END])
    chunks = [answer.accept(token) for token in [*ids[resumed:], END]]
    assert answer.ids == ids
    assert answer.text.endswith("".join(chunk.text for chunk in chunks if chunk))
    return [chunk for chunk in chunks if chunk is not None]


@given(text=texts)
def test_the_chunks_of_a_text_are_the_text(python: Tokenizer, text: str) -> None:
    ids = ids_of(python, text)
    chunks = chunks_of(python, ids)
    assert "".join(chunk.text for chunk in chunks) == python.decode(ids)
    assert [token for chunk in chunks for token in chunk.ids] == ids


@given(data=st.data())
def test_the_chunks_of_any_ids_are_their_text(python: Tokenizer, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, python.get_vocab_size() - 1), max_size=30))
    whole = python.decode(ids)
    streamed = "".join(chunk.text for chunk in chunks_of(python, ids))
    if "\ufffd" in whole and "<0xE2>" in python.get_vocab():
        # Bytes that are no text are known to be none only at the end of their run.
        assert streamed.count("\ufffd") <= whole.count("\ufffd") + len(ids)
    else:
        assert streamed == whole


@given(text=texts, at=st.integers(0, 60))
def test_a_resumed_answer_goes_on_with_the_same_text(python: Tokenizer, text: str, at: int) -> None:
    ids = ids_of(python, text)
    whole = chunks_of(python, ids)
    told = 0
    for place, chunk in enumerate(whole):
        if told >= at:
            assert chunks_of(python, ids, resumed=told) == whole[place:]
            break
        told += len(chunk.ids)
