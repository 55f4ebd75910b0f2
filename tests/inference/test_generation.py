"""An answer as it grows: what is shown, when, and that it can be taken up again anywhere."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pyodide_node.errors import ConfigError
from pyodide_node.inference.generation import Chunk, Generation, InferenceRequest

EOS = 256
PROMPT = (1, 2, 3)


def decode(ids: Sequence[int]) -> str:
    """A token is a byte, as with the simulated model."""
    return bytes(one for one in ids if one < 256).decode(errors="replace")


def generation(**request: object) -> Generation:
    fields = {"prompt": "x", "max_tokens": 1000} | request
    return Generation(PROMPT, InferenceRequest(**fields), decode, [EOS])  # type: ignore[arg-type]


def feed(answer: Generation, ids: Sequence[int]) -> list[Chunk]:
    """The chunks that come until the ids or the answer end."""
    chunks = []
    for token in ids:
        if answer.finished is not None:
            break
        chunk = answer.accept(token)
        if chunk is not None:
            chunks.append(chunk)
    return chunks


def text_of(chunks: Sequence[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def ids_of(chunks: Sequence[Chunk]) -> list[int]:
    return [token for chunk in chunks for token in chunk.ids]


words = st.text("aé日😀 xyz", max_size=30)
raw = st.lists(st.integers(0, 255), max_size=40)
tokens = st.one_of(words.map(lambda text: list(text.encode())), raw)
stops = st.lists(st.text("aé日😀xyz", min_size=1, max_size=4), max_size=3).map(tuple)


@given(ids=tokens)
def test_the_chunks_together_are_the_text_of_all_ids(ids: list[int]) -> None:
    answer = generation()
    chunks = feed(answer, [*ids, EOS])
    assert text_of(chunks) == answer.text == decode(ids)
    assert ids_of(chunks) == answer.ids == ids
    assert answer.finished == "stop"


@given(ids=tokens, stop=stops)
def test_text_and_ids_told_so_far_always_belong_together(
    ids: list[int], stop: tuple[str, ...]
) -> None:
    answer = generation(stop=stop)
    told_text, told_ids = "", []
    for token in ids:
        if answer.finished is not None:
            break
        chunk = answer.accept(token)
        if chunk is not None and answer.finished is None:
            told_text += chunk.text
            told_ids += chunk.ids
            assert told_text == decode(told_ids) == answer.text


@given(text=words, stop=stops)
def test_an_answer_ends_before_the_first_stop_string(text: str, stop: tuple[str, ...]) -> None:
    found = [text.find(one) for one in stop if one in text]
    answer = generation(stop=stop)
    chunks = feed(answer, [*text.encode(), EOS])
    if not found:
        assert text_of(chunks) == text
    else:
        # Nothing of a stop string that ended first is ever shown.
        ends = min(text.find(one) + len(one) for one in stop if one in text)
        shown = min(text[:ends].find(one) for one in stop if one in text[:ends])
        assert text_of(chunks) == answer.text == text[:shown]
    assert answer.finished == "stop"


def test_a_stop_string_is_found_across_token_borders() -> None:
    answer = generation(stop=("END",))
    chunks = feed(answer, b"one ENtwo END three")
    assert text_of(chunks) == "one ENtwo "
    assert decode(answer.ids) == "one ENtwo END"


def test_what_may_begin_a_stop_string_waits_for_the_next_token() -> None:
    answer = generation(stop=("END",))
    assert [answer.accept(token) for token in b"aEN"] == [Chunk("a", (97,)), None, None]
    assert answer.accept(ord("x")) == Chunk("ENx", (69, 78, 120))


def test_half_a_character_waits_for_the_rest() -> None:
    answer = generation()
    first, second = "é".encode()
    assert answer.accept(first) is None
    assert answer.accept(second) == Chunk("é", (first, second))


def test_the_last_token_allowed_tells_all_that_waited() -> None:
    answer = generation(max_tokens=3, stop=("END",))
    assert text_of(feed(answer, b"aENDx")) == "aEN"
    assert answer.finished == "length"
    half = generation(max_tokens=1)
    assert half.accept("é".encode()[0]) == Chunk("\ufffd", ("é".encode()[0],))


def test_an_end_of_sequence_is_neither_told_nor_kept() -> None:
    answer = generation()
    assert answer.accept(EOS) is None
    assert (answer.ids, answer.text, answer.finished) == ([], "", "stop")


def test_special_tokens_without_text_are_told_as_ids() -> None:
    answer = Generation(PROMPT, InferenceRequest(prompt="x"), decode, [])
    assert answer.accept(300) == Chunk("", (300,))


@given(ids=tokens, stop=stops, at=st.integers(0, 40), limit=st.integers(1, 41))
def test_resumed_from_any_prefix_it_ends_with_the_same_text_and_ids(
    ids: list[int], stop: tuple[str, ...], at: int, limit: int
) -> None:
    whole = generation(stop=stop, max_tokens=limit)
    feed(whole, [*ids, EOS])
    prefix = tuple(whole.ids[:at])
    again = generation(stop=stop, max_tokens=limit, resume_ids=prefix)
    chunks = feed(again, [*ids, EOS][len(prefix) :])
    assert (again.ids, again.text, again.finished) == (whole.ids, whole.text, whole.finished)
    assert [*prefix, *ids_of(chunks)] == whole.ids


@given(ids=tokens, stop=stops, at=st.integers(0, 40))
def test_resumed_after_a_chunk_it_goes_on_with_the_next_one(
    ids: list[int], stop: tuple[str, ...], at: int
) -> None:
    chunks = feed(generation(stop=stop), [*ids, EOS])
    assume(at < len(chunks))
    prefix = ids_of(chunks[:at])
    again = generation(stop=stop, resume_ids=tuple(prefix))
    assert feed(again, [*ids, EOS][len(prefix) :]) == chunks[at:]


def test_resumed_with_all_its_tokens_it_has_finished() -> None:
    assert generation(max_tokens=2, resume_ids=(97, 98)).finished == "length"


def test_a_new_route_is_fed_prompt_and_answer() -> None:
    answer = generation(resume_ids=(97,))
    answer.accept(98)
    assert answer.known == [*PROMPT, 97, 98]
    assert answer.position == 5


@pytest.mark.parametrize("count", [0, -1, (1 << 17) + 1])
def test_an_impossible_length_is_refused(count: int) -> None:
    with pytest.raises(ConfigError, match="max_tokens"):
        InferenceRequest(prompt="x", max_tokens=count)


@pytest.mark.parametrize("stop", [("",), ("x" * 257,), ("x",) * 17])
def test_stop_strings_out_of_bounds_are_refused(stop: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="stop takes up to 16"):
        InferenceRequest(prompt="x", stop=stop)
