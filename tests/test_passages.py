"""Passages: they are the text, whole and in order, and end where a reader would stop."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cuadft.errors import InputError
from cuadft.passages import cut, locate_words, overlapping

NASTY = st.text(
    alphabet=st.sampled_from("aZ9.!? \n\t\r\u00a0\u2028\u200b”)(é漢😀\u0301"), max_size=400
) | st.text(max_size=300)


@settings(max_examples=200, deadline=None)
@given(NASTY, st.integers(1, 120))
@example("x" * 5000, 100)
@example("\n" * 999, 7)
@example("word " * 500 + "\n\n" + "y" * 300, 40)
def test_passages_are_the_whole_text_in_order_and_never_too_long(text: str, size: int) -> None:
    passages = cut(text, contract="A", size=size)
    assert "".join(passage.text for passage in passages) == text
    for index, passage in enumerate(passages):
        assert (passage.index, passage.contract) == (index, "A")
        assert text[passage.start : passage.end] == passage.text
        assert 0 < len(passage.text) <= 1.25 * size


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("abcxyz", min_size=1, max_size=12), min_size=1, max_size=120), st.integers(20, 80))
def test_no_word_is_cut_where_blanks_are_within_reach(words: list[str], size: int) -> None:
    # Words of at most 12 letters and one blank: 13 <= 1.25 * 20, so a blank is always within reach.
    passages = cut(" ".join(words), size=size)
    for before, after in pairwise(passages):
        assert before.text.endswith(" ") or after.text.startswith(" ")


def test_empty_text_has_no_passages_and_size_must_be_positive() -> None:
    assert cut("") == []
    with pytest.raises(InputError, match="Invalid passage size 0"):
        cut("text", size=0)


def test_a_passage_ends_at_a_paragraph_before_a_sentence_before_a_word() -> None:
    # 70 characters of words, then the end in question, then more; size 80 may end from 48 to 100.
    words = "word " * 14
    assert cut(words + "end.\n\nNext one. And " + "more " * 30, size=80)[0].text == words + "end.\n\n"
    assert cut(words + "end. Next " + "more " * 30, size=80)[0].text == words + "end. "
    # "Inc." ends no sentence, so the passage goes on to the blank nearest to 80: 70 + 5 + 5 = 80.
    assert cut(words + "Inc. Next " + "more " * 30, size=80)[0].text == words + "Inc. Next "


def test_a_heading_stays_with_the_clause_below_it() -> None:
    clause = "The buyer pays within thirty days after delivery.\n\n"  # 51 characters
    first, *_ = cut(clause + "2. WARRANTY\n\n" + clause * 3, size=60)
    assert first.text == clause


def test_a_tiny_tail_joins_the_passage_before_it() -> None:
    # 100 + 15 = 115 <= 125 and 15 < 20: one passage; 100 + 25: the tail is no longer tiny.
    assert len(cut("a" * 99 + " " + "b" * 15, size=100)) == 1
    assert len(cut("a" * 99 + " " + "b" * 25, size=100)) == 2


def test_overlapping_names_every_passage_that_shares_a_character() -> None:
    passages = cut("aaaa bbbb cccc dddd ", size=5)
    assert [passage.text for passage in passages] == ["aaaa ", "bbbb ", "cccc ", "dddd "]
    assert overlapping(passages, [{"text": "a b", "start": 3}]) == [0, 1]  # characters 3 to 5
    assert overlapping(passages, [{"text": "bbbb ", "start": 5}, {"text": "d", "start": 15}]) == [1, 3]
    assert overlapping(passages, []) == overlapping([], [{"text": "a", "start": 0}]) == []
    assert overlapping(passages, [{"text": "", "start": 7}]) == []


@settings(max_examples=60, deadline=None)
@given(st.text("ab .\n", min_size=1, max_size=120), st.data())
def test_overlapping_agrees_with_the_characters(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    passages = cut(text, size=10)
    expected = [p.index for p in passages if set(range(p.start, p.end)) & set(range(start, end))]
    assert overlapping(passages, [{"text": text[start:end], "start": start}]) == expected


def test_words_are_located_across_blanks_and_case() -> None:
    text = "Governed by\n   the LAWS of Ohio. Notice: no notice."
    found = locate_words("governed by the laws of ohio", text)
    assert text[slice(*found)] == "Governed by\n   the LAWS of Ohio"
    assert locate_words("not here", text) == locate_words(" ", text) == []


def test_words_are_located_only_inside_the_passage() -> None:
    text = "Ohio law. Utah law. Ohio law."
    assert locate_words("Ohio law", text, 10, len(text)) == [20, 28]
    assert locate_words("Ohio law", text, 10, 25) == []


def test_one_word_must_be_whole_and_marks_are_no_patterns() -> None:
    text = "Notice: no (notice) [*]."
    assert locate_words("no", text) == [8, 10]
    assert locate_words("[*].", text) == [20, 24]
    assert locate_words("(notice", text) == [11, 18]


@settings(max_examples=100, deadline=None)
@given(NASTY, st.data())
def test_any_stretch_of_words_is_found_in_its_own_text(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    stretch = text[start : data.draw(st.integers(start, len(text)))]
    if len(stretch.split()) > 1:
        found = locate_words(stretch, text, start, start + len(stretch))
        assert text[slice(*found)].split() == stretch.split()
