"""Properties of labels: a passage counts as a non-answer only where that is known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuadft.data.passages import Passage
from cuadft.retrieval.triples import GoldLabels, category_of

CLAUSE = "The liability of either party shall not exceed the fees paid in the last year."


def row(contract: str, category: str = "Cap", spans=(), source: str = "cuad") -> dict:
    answers = [{"text": text, "start": start} for start, text in spans]
    name = {"id": f"{contract}-{category}", "contract": contract, "category": category}
    return name | {"answers": answers, "source": source}


def passage(contract: str, start: int, text: str) -> Passage:
    return Passage(contract, 0, start, start + len(text), text)


@given(st.integers(0, 40), st.integers(1, 20), st.integers(0, 40), st.integers(1, 20))
def test_a_passage_is_touched_by_a_span_that_shares_a_character(start, length, begin, size):
    labels = GoldLabels([row("a", spans=[(start, "x" * length)])])
    shared = set(range(start, start + length)) & set(range(begin, begin + size))
    assert labels.touched(passage("a", begin, "y" * size)) == ({"Cap"} if shared else frozenset())
    assert not labels.touched(passage("b", begin, "y" * size))


@pytest.mark.parametrize(
    ("labelled", "expected"),
    [
        ([], True),  # nothing is known of the other contract
        ([row("b", "Term")], True),  # only another category is
        ([row("b")], False),  # it has no such clause
        ([row("b", spans=[(100, "elsewhere")])], False),
        ([row("b", spans=[(0, "here")])], True),
        ([row("b", spans=[(100, "elsewhere")], source="synthetic")], True),  # one question says nothing of the rest
    ],
)
def test_a_passage_of_another_contract_may_answer_unless_labels_deny_it(labelled, expected):
    assert GoldLabels([row("a"), *labelled]).may_answer(passage("b", 0, "some words"), row("a")) == expected


def test_in_its_own_contract_only_what_the_spans_touch_answers():
    own = row("a", spans=[(0, "here")], source="own")
    assert GoldLabels([own]).may_answer(passage("a", 0, "here it is"), own)
    assert not GoldLabels([own]).may_answer(passage("a", 50, "here it is not"), own)


def test_a_long_clause_that_stands_elsewhere_word_for_word_is_recognised():
    labels = GoldLabels([row("a", spans=[(0, CLAUSE), (200, "year")])])
    copied = passage("b", 0, f"7.2 {CLAUSE.upper().replace(' ', chr(10))} And so on.")
    assert labels.repeats(copied, "Cap") and not labels.repeats(copied, "Term")
    assert not labels.repeats(passage("b", 0, "The agreement lasts for a year."), "Cap")  # "year" alone says nothing


def test_a_row_without_a_category_is_one_of_its_own():
    assert category_of(row("a", "")) == "a-" and category_of(row("a", "Cap")) == "Cap"
