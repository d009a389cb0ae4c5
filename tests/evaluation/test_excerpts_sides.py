"""Properties of compared texts: shared words are marked, and nothing else is changed."""

from hypothesis import given, settings
from hypothesis import strategies as st

from cuadft.evaluation.excerpts import mark_shared

WORDS = st.lists(st.sampled_from(["the", "laws", "of", "Ohio,", "Ohio", "(a)", "…", " ", "\n"]), max_size=12).map(
    " ".join
)


def shared(text, *others):
    return [piece.text for piece in mark_shared(text, others) if piece.gold]


def test_words_in_a_row_that_another_text_has_are_marked_whatever_their_case_and_punctuation():
    assert shared("By THE LAWS, of Ohio today", "the laws of Ohio") == ["THE LAWS, of Ohio"]


def test_single_words_count_only_where_a_text_has_no_more():
    assert shared("the state of Ohio", "laws of Texas") == []
    assert shared("the state of Ohio", "Ohio.") == ["Ohio"]
    assert shared("EMV", "EMV and others") == ["EMV"]


def test_any_of_the_other_texts_may_have_the_words():
    assert shared("first span and second span", "a second span", "the first span") == ["first span", "second span"]


@settings(deadline=None)
@given(WORDS, st.lists(WORDS, max_size=3))
def test_marks_change_no_character(text, others):
    assert "".join(piece.text for piece in mark_shared(text, others)) == text
