"""Properties of CUAD's rule for a quoted span, held against its script's loops."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuadft.evaluation.metrics import SPAN_MATCH_FROM, span_jaccard

PIECES = ["Fee", "fee", "fee;", "net/30", "net", "30", "days", "a", "the", "“Agent”", "U.S.", "US", "İ", "-", "."]
SPAN = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map(" ".join)


def script_jaccard(gold, answer):
    # evaluate.py of TheAtticusProject/cuad
    sets = []
    for text in (gold, answer):
        for mark in (".", ",", ";", ":"):
            text = text.replace(mark, "")
        sets.append(set(text.lower().replace("/", " ").split()))
    together = sets[0].union(sets[1])
    return len(sets[0].intersection(sets[1])) / len(together) if together else 0.0  # the script divides by zero


@given(SPAN, SPAN)
def test_jaccard_is_that_of_cuads_script_symmetric_and_1_for_equal_words(a, b):
    assert span_jaccard(a, b) == span_jaccard(b, a) == pytest.approx(script_jaccard(a, b))
    assert span_jaccard(a, f"{a} {a.upper()}") == 1 or not span_jaccard(a, a)


def test_jaccard_by_hand():
    # {fee, due, in, may} and {fee, due, in, june}: 3 of 5 shared
    assert span_jaccard("Fee, due in May.", "fee due in June") == pytest.approx(0.6)


def test_quoting_far_more_than_the_clause_is_punished_though_it_holds_the_clause():
    clause = " ".join(f"w{n}" for n in range(10))
    # 10 of 20 different words: still found; 10 of 21: not
    assert span_jaccard(clause + " " + " ".join(f"x{n}" for n in range(10)), clause) >= SPAN_MATCH_FROM
    assert span_jaccard(clause + " " + " ".join(f"x{n}" for n in range(11)), clause) < SPAN_MATCH_FROM
