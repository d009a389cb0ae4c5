"""Passages: they are the text, whole and in order, and end where a reader would stop."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cuadft.core.errors import InputError
from cuadft.data.passages import (
    _LONGEST_SENTENCE,
    _SHORTEST_SENTENCE,
    cut_passages,
    cut_sentences,
    gold_shares,
    join_passages,
    join_pieces,
    locate_words,
    merge_spans,
    overlapping,
)

NASTY = st.text(alphabet=st.sampled_from("aZ9.!? \n\t\r\u00a0\u2028\u200b”)(é漢😀\u0301"), max_size=400) | st.text(
    max_size=300
)


@settings(max_examples=200, deadline=None)
@given(NASTY, st.integers(1, 120))
@example("x" * 5000, 100)
@example("\n" * 999, 7)
@example("word " * 500 + "\n\n" + "y" * 300, 40)
def test_passages_are_the_whole_text_in_order_and_never_too_long(text: str, size: int) -> None:
    passages = cut_passages(text, contract="A", size=size)
    assert "".join(passage.text for passage in passages) == text
    for index, passage in enumerate(passages):
        assert (passage.index, passage.contract) == (index, "A")
        assert text[passage.start : passage.end] == passage.text
        assert 0 < len(passage.text) <= 1.25 * size


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("abcxyz", min_size=1, max_size=12), min_size=1, max_size=120), st.integers(20, 80))
def test_no_word_is_cut_where_blanks_are_within_reach(words: list[str], size: int) -> None:
    # Words of at most 12 letters and one blank: 13 <= 1.25 * 20, so a blank is always within reach.
    passages = cut_passages(" ".join(words), size=size)
    for before, after in pairwise(passages):
        assert before.text.endswith(" ") or after.text.startswith(" ")


@settings(max_examples=200, deadline=None)
@given(NASTY, st.integers(4, 120), st.sampled_from([0.25, 0.33, 0.5, 0.67, 0.75]))
@example("word " * 500, 100, 0.5)
def test_overlapping_passages_cover_the_text_and_repeat_the_share_asked_for(
    text: str, size: int, overlap: float
) -> None:
    passages = cut_passages(text, contract="A", size=size, overlap=overlap)
    pieces = {0.25: 4, 0.33: 3, 0.5: 2, 0.67: 3, 0.75: 4}[overlap]
    whole = cut_passages(text, size=size // pieces)
    assert [p.index for p in passages] == list(range(len(passages)))
    assert {n for p in passages for n in range(p.start, p.end)} == set(range(len(text)))
    for passage in passages:
        assert text[passage.start : passage.end] == passage.text
        assert 0 < len(passage.text) <= 1.25 * size
        held = [piece for piece in whole if piece.start >= passage.start and piece.end <= passage.end]
        assert "".join(piece.text for piece in held) == passage.text and len(held) == min(pieces, len(whole))
    step = round(pieces * (1 - overlap))
    for before, after in list(pairwise(passages))[:-1]:  # the last one is a full one, whatever it repeats
        assert sum(piece.start >= before.start and piece.end <= after.start for piece in whole) == step


def test_passages_that_overlap_by_half_lie_side_by_side_in_two_rows() -> None:
    passages = cut_passages("aaaa bbbb cccc dddd eeee ", size=10, overlap=0.5)
    assert [p.text for p in passages] == ["aaaa bbbb ", "bbbb cccc ", "cccc dddd ", "dddd eeee "]
    assert cut_passages("aaaa bbbb ", size=10, overlap=0.5)[0].text == "aaaa bbbb "


@pytest.mark.parametrize("overlap", [-0.5, 0.1, 0.9, 1, float("nan")])
def test_an_overlap_that_pieces_cannot_make_is_refused(overlap: float) -> None:
    with pytest.raises(InputError, match="Invalid passage size 800 or overlap .* 0, 0.25"):
        cut_passages("text", overlap=overlap)
    with pytest.raises(InputError, match="Invalid passage size 1 or overlap 0.5"):
        cut_passages("text", size=1, overlap=0.5)


def test_empty_text_has_no_passages_and_size_must_be_positive() -> None:
    assert cut_passages("") == []
    with pytest.raises(InputError, match="Invalid passage size 0"):
        cut_passages("text", size=0)


def test_a_passage_ends_at_a_paragraph_before_a_sentence_before_a_word() -> None:
    # 70 characters of words, then the end in question, then more; size 80 may end from 48 to 100.
    words = "word " * 14
    assert cut_passages(words + "end.\n\nNext one. And " + "more " * 30, size=80)[0].text == words + "end.\n\n"
    assert cut_passages(words + "end. Next " + "more " * 30, size=80)[0].text == words + "end. "
    # "Inc." ends no sentence, so the passage goes on to the blank nearest to 80: 70 + 5 + 5 = 80.
    assert cut_passages(words + "Inc. Next " + "more " * 30, size=80)[0].text == words + "Inc. Next "


def test_a_heading_stays_with_the_clause_below_it() -> None:
    clause = "The buyer pays within thirty days after delivery.\n\n"  # 51 characters
    first, *_ = cut_passages(clause + "2. WARRANTY\n\n" + clause * 3, size=60)
    assert first.text == clause


def test_a_tiny_tail_joins_the_passage_before_it() -> None:
    # 100 + 15 = 115 <= 125 and 15 < 20: one passage; 100 + 25: the tail is no longer tiny.
    assert len(cut_passages("a" * 99 + " " + "b" * 15, size=100)) == 1
    assert len(cut_passages("a" * 99 + " " + "b" * 25, size=100)) == 2


def test_overlapping_names_every_passage_that_shares_a_character() -> None:
    passages = cut_passages("aaaa bbbb cccc dddd ", size=5)
    assert [passage.text for passage in passages] == ["aaaa ", "bbbb ", "cccc ", "dddd "]
    assert overlapping(passages, [{"text": "a b", "start": 3}]) == [0, 1]  # characters 3 to 5
    assert overlapping(passages, [{"text": "bbbb ", "start": 5}, {"text": "d", "start": 15}]) == [1, 3]
    assert overlapping(passages, []) == overlapping([], [{"text": "a", "start": 0}]) == []
    assert overlapping(passages, [{"text": "", "start": 7}]) == []


def test_a_share_is_of_the_span_or_of_the_passage_whichever_is_more() -> None:
    passages = cut_passages("aaaa bbbb cccc dddd ", size=5)
    # characters 3 to 12: 2 of passage 0's 5 (of the span 2 / 9), all of passage 1, 2 of passage 2's 5
    assert gold_shares(passages, [{"text": "a bbbb cc", "start": 3}]) == {0: 2 / 5, 1: 1.0, 2: 2 / 5}
    # two spans in passage 0: 1 of 1 character, and 2 of 4; the better one counts; 2 of 4 also in passage 1
    assert gold_shares(passages, [{"text": "a", "start": 0}, {"text": "a bb", "start": 3}]) == {0: 1.0, 1: 0.5}


@settings(max_examples=60, deadline=None)
@given(st.text("ab .\n", min_size=1, max_size=120), st.sampled_from([0, 0.5, 0.75]), st.data())
def test_overlapping_agrees_with_the_characters(text: str, overlap: float, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    passages = cut_passages(text, size=10, overlap=overlap)
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


SPANS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)).map(sorted).map(tuple), max_size=8)


@given(SPANS)
def test_merged_spans_hold_the_same_characters_in_order_and_apart(spans):
    merged = merge_spans(spans)
    assert [n for start, end in merged for n in range(start, end)] == sorted(
        {n for start, end in spans for n in range(start, end)}
    )
    assert all(before[1] < after[0] for before, after in pairwise(merged))
    assert merge_spans(merged) == merged == merge_spans(reversed(spans))


def test_spans_that_touch_are_one_and_a_span_that_ends_before_it_starts_stays_as_it_is():
    assert merge_spans([(5, 9), (1, 3), (3, 4), (6, 7)]) == [(1, 4), (5, 9)]
    assert merge_spans([(9, 5)]) == [(9, 5)], "so that whoever checks spans still sees it"


@given(text=st.text(min_size=1, max_size=60), cuts=SPANS)
def test_joined_pieces_show_each_character_once_in_its_place(text, cuts):
    cuts = [(min(a, len(text)), min(b, len(text))) for a, b in cuts]
    joined = join_pieces((a, text[a:b]) for a, b in cuts)
    assert all(text[start : start + len(part)] == part for start, part in joined)
    assert [(start, start + len(part)) for start, part in joined] == merge_spans(cuts)


@settings(max_examples=50, deadline=None)
@given(text=NASTY, size=st.integers(4, 120), overlap=st.sampled_from([0, 0.25, 0.5, 0.75]), data=st.data())
def test_passages_side_by_side_join_to_the_text_that_they_cover(text, size, overlap, data):
    passages = cut_passages(text, size=size, overlap=overlap)
    first = data.draw(st.integers(0, len(passages)))
    chosen = passages[first : data.draw(st.integers(first, len(passages)))]
    start, end = (chosen[0].start, max(passage.end for passage in chosen)) if chosen else (0, 0)
    assert join_passages(data.draw(st.permutations(chosen))) == (text[start:end], start)


@settings(max_examples=200, deadline=None)
@given(
    NASTY | st.lists(st.sampled_from(["A sentence of some words here. ", "x" * 900, "no end; ", "\n\n"])).map("".join)
)
@example("word " * 500)
@example("x" * 5000)
def test_sentences_hold_all_words_in_order_and_are_never_blank_or_too_long(text: str) -> None:
    sentences = cut_sentences(text, contract="A")
    between = zip([0, *(s.end for s in sentences)], [*(s.start for s in sentences), len(text)])
    assert not any(text[start:end].strip() for start, end in between)
    assert all(sentence.text.strip() for sentence in sentences)
    assert all(before.end <= after.start for before, after in zip(sentences, sentences[1:]))
    for index, sentence in enumerate(sentences):
        assert (sentence.index, sentence.contract) == (index, "A")
        assert text[sentence.start : sentence.end] == sentence.text
        assert 0 < len(sentence.text) <= _LONGEST_SENTENCE + _SHORTEST_SENTENCE


def test_a_sentence_ends_with_its_mark_or_its_paragraph_and_a_heading_joins_what_follows() -> None:
    law = "This Agreement is governed by the laws of the State of Ohio. "
    term = "It ends two years after the Effective Date, unless renewed"
    title = "\n\nTERM\n\n"
    made = cut_sentences(f"{law}{law.replace('Ohio', 'Acme Inc. of Maine')}{term}{title}{law}")
    assert [sentence.text.strip() for sentence in made] == [
        law.strip(),
        law.replace("Ohio", "Acme Inc. of Maine").strip(),
        term,
        f"TERM\n\n{law.strip()}",
    ]


def test_a_long_sentence_is_cut_at_a_semicolon_before_a_comma() -> None:
    parts = [f"the duty of number {n}, as agreed" for n in range(60)]
    made = cut_sentences("; ".join(parts))
    assert len(made) > 2 and all(sentence.text.endswith("; ") for sentence in made[:-1])
